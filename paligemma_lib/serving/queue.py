"""Who is served next: requests take turns by the image, those without a program stand aside.

    queue = Queue(prepare=[Greedy()], max_waiting=64, timeout=120.0)
    queue.put(request)
    sampler = queue.next_sampler()              # one thread compiles
    queue.compiled(sampler)
    request = queue.next_request()              # another one writes the next caption
    queue.show(request, 0, Answer("a dog", ...))
    queue.end_turn(request)

An image is the unit: a request with more of them goes to the end after each, so that nobody waits
for all images of somebody else. Nothing here knows of models.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from paligemma_lib.serving.answers import Answer, Progress, Stage

if TYPE_CHECKING:
    from paligemma_lib.decode.programs import Strategy


class Busy(RuntimeError):
    """Too many requests are waiting."""


@dataclasses.dataclass(eq=False)
class Request:
    """Images to be captioned, as `Service.ask` returns it."""

    queue: Queue = dataclasses.field(repr=False)
    images: tuple[bytes, ...] = dataclasses.field(repr=False)
    prompt: str
    sampler: Strategy
    max_new_tokens: int
    seed: int

    def __post_init__(self) -> None:
        # The queue's, to be read and changed while holding its lock.
        self._answers = [Answer() for _ in self.images]
        self._seen = time.monotonic()
        self._cancelled = False

    def progress(self) -> Progress:
        """How far it is; to be asked now and then, since what nobody asks about is dropped."""
        return self.queue.progress(self)

    def cancel(self) -> None:
        """Writes no more; answers that are there stay."""
        self.queue.cancel(self)


class Queue:
    """Requests in turn, and samplers whose programs are still to be compiled."""

    def __init__(self, *, prepare: Iterable[Strategy] = (), max_waiting: int, timeout: float):
        """Args are those of `Service`."""
        self._max_waiting, self._patience = max_waiting, timeout
        self._changed = threading.Condition()
        # All below is read and changed while holding it.
        self._uncompiled = deque(dict.fromkeys(prepare))
        self._compiled: set[Strategy] = set()
        self._aside: list[Request] = []  # waiting for a program
        self._in_turn: deque[Request] = deque()
        self._current: Request | None = None
        self._loaded = self._closed = False
        self._problem: str | None = None

    # For those who ask.

    def put(self, request: Request) -> None:
        """Takes a request on.

        Raises:
          Busy: too many are waiting.
          RuntimeError: all was given up.
        """
        with self._changed:
            if self._problem is not None:
                raise RuntimeError(self._problem)
            if len(self._aside) + len(self._in_turn) >= self._max_waiting:
                raise Busy(f"{self._max_waiting} requests are waiting already")
            if request.sampler in self._compiled:
                self._in_turn.append(request)
            else:
                self._aside.append(request)
                if request.sampler in self._uncompiled:
                    self._uncompiled.remove(request.sampler)
                self._uncompiled.appendleft(request.sampler)  # before what nobody waits for
            self._changed.notify_all()

    def progress(self, request: Request) -> Progress:
        """How far a request is, and that somebody still wants to know."""
        with self._changed:
            request._seen = time.monotonic()
            stage: Stage
            ahead = 0
            if not self._goes_on(request):
                stage = "over"
            elif request is self._current:
                stage = "writing"
            elif request in self._in_turn:
                stage, ahead = "waiting", self._in_turn.index(request)
                ahead += self._current is not None
            else:
                stage = "compiling" if self._loaded else "loading"
            return Progress(stage, ahead, tuple(request._answers))

    def cancel(self, request: Request) -> None:
        """Writes no more of it."""
        with self._changed:
            request._cancelled = True
            for waiting in (self._aside, self._in_turn):
                if request in waiting:
                    waiting.remove(request)

    # For the thread that compiles.

    @property
    def all_compiled(self) -> bool:
        """Whether a model is there, with programs for all that was asked for."""
        with self._changed:
            return self._loaded and not self._uncompiled

    def is_compiled(self, sampler: Strategy) -> bool:
        """Whether requests with this sampler wait for nothing but their turn."""
        with self._changed:
            return sampler in self._compiled

    def next_sampler(self) -> Strategy | None:
        """Waits until there is something to compile, now that the model is loaded; None: closed."""
        with self._changed:
            self._loaded = True
            self._changed.wait_for(lambda: self._uncompiled or self._closed)
            return None if self._closed else self._uncompiled[0]

    def compiled(self, sampler: Strategy, problem: str | None = None) -> None:
        """Lets those take turns who waited for this sampler, or tells them what is wrong."""
        with self._changed:
            self._uncompiled.remove(sampler)
            if problem is None:
                self._compiled.add(sampler)
            for request in [each for each in self._aside if each.sampler == sampler]:
                self._aside.remove(request)
                if problem is None:
                    self._in_turn.append(request)
                else:
                    self._fail(request, problem)
            self._changed.notify_all()

    def give_up(self, problem: str) -> None:
        """Tells all who wait, and all who come, that there is no model."""
        with self._changed:
            self._problem = problem
            for request in self._aside:
                self._fail(request, problem)
            self._aside.clear()

    # For the thread that writes.

    def next_request(self) -> tuple[Request, int] | None:
        """Waits for the next one, with the number of the image in turn; None: closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_turn or self._closed)
            if self._closed:
                return None
            request = self._current = self._in_turn.popleft()
            return request, [answer.over for answer in request._answers].index(False)

    def show(self, request: Request, number: int, answer: Answer) -> bool:
        """Tells what is written so far; returns whether somebody waits for more."""
        with self._changed:
            request._answers[number] = answer
            if time.monotonic() - request._seen > self._patience:
                request._cancelled = True
            return self._goes_on(request)

    def end_turn(self, request: Request) -> None:
        """Sends a request that has more images to the end."""
        with self._changed:
            self._current = None
            if self._goes_on(request):
                self._in_turn.append(request)

    def close(self) -> None:
        """Ends both threads after what they are doing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _goes_on(self, request: Request) -> bool:
        return not request._cancelled and not all(answer.over for answer in request._answers)

    def _fail(self, request: Request, problem: str) -> None:
        request._answers = [Answer(problem=problem)] * len(request.images)
