"""Queues requests: they take turns image by image, once their sampler is compiled.

    queue = Queue(prepare=[Greedy()], max_waiting=64, timeout=120.0)
    queue.put(request)
    sampler = queue.next_sampler()              # one thread compiles
    queue.compiled(sampler)
    request = queue.next_request()              # another one writes the next caption
    queue.show(request, 0, Answer("a dog", ...))
    queue.end_turn(request)

After each image a request with more images goes to the end of the queue, so that one client does
not wait for all images of another. The queue does not depend on a model.
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
    """Raised when too many requests are waiting."""


# Compared by identity (`eq=False`), since two clients may send equal requests.
@dataclasses.dataclass(eq=False)
class Request:
    """Images to be captioned, with the settings for all of them; `Service.ask` returns it.

    Attributes:
      queue: the queue that the request was put in.
      images: bytes of image files.
      prompt: prompt of all images.
      sampler: chooses the tokens.
      max_new_tokens: largest number of tokens of a caption.
      seed: seed of samplers that draw at random.
    """

    queue: Queue = dataclasses.field(repr=False)
    images: tuple[bytes, ...] = dataclasses.field(repr=False)
    prompt: str
    sampler: Strategy
    max_new_tokens: int
    seed: int

    def __post_init__(self) -> None:
        # These belong to the queue, which reads and changes them while it holds its lock.
        self._answers = [Answer() for _ in self.images]
        self._seen = time.monotonic()
        self._cancelled = False

    def progress(self) -> Progress:
        """Returns the progress of this request, and has to be called regularly.

        A request is cancelled after `timeout` seconds without a call. This is checked only while a
        caption of the request is being written.
        """
        return self.queue.progress(self)

    def cancel(self) -> None:
        """Cancels the request; answers so far are kept."""
        self.queue.cancel(self)


class Queue:
    """A queue of requests, and of samplers that are still to be compiled.

    Any thread may put, query and cancel requests. One thread compiles, and one writes.
    """

    def __init__(self, *, prepare: Iterable[Strategy] = (), max_waiting: int, timeout: float):
        """Takes the arguments of `Service` with the same names."""
        self._max_waiting, self._patience = max_waiting, timeout
        # One lock for everything below, and the condition on which both threads wait. Threads hold
        # it only for a moment: never while compiling or writing.
        self._changed = threading.Condition()
        self._uncompiled = deque(dict.fromkeys(prepare))
        self._compiled: set[Strategy] = set()
        self._aside: list[Request] = []  # requests whose sampler is not compiled
        self._in_turn: deque[Request] = deque()  # requests that can be served, in this order
        self._current: Request | None = None
        self._loaded = self._closed = False
        self._problem: str | None = None

    # Methods for clients.

    def put(self, request: Request) -> None:
        """Adds a request to the queue.

        Raises:
          Busy: `max_waiting` requests are waiting already.
          RuntimeError: `give_up` was called.
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
                # A sampler that a request waits for is compiled before those of `prepare`.
                self._uncompiled.appendleft(request.sampler)
            self._changed.notify_all()

    def progress(self, request: Request) -> Progress:
        """Returns the progress of a request, and notes the time, so that it does not time out."""
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
        """Cancels a request, and removes it if it is waiting."""
        with self._changed:
            request._cancelled = True
            for waiting in (self._aside, self._in_turn):
                if request in waiting:
                    waiting.remove(request)

    # Methods for the thread that compiles.

    @property
    def all_compiled(self) -> bool:
        """Whether the model is loaded and no sampler is left to compile."""
        with self._changed:
            return self._loaded and not self._uncompiled

    def is_compiled(self, sampler: Strategy) -> bool:
        """Returns whether requests with this sampler need not wait for compilation."""
        with self._changed:
            return sampler in self._compiled

    def next_sampler(self) -> Strategy | None:
        """Waits for a sampler to compile and returns it; None: the queue is closed.

        The first call also says that the model is loaded.
        """
        with self._changed:
            self._loaded = True
            self._changed.wait_for(lambda: self._uncompiled or self._closed)
            return None if self._closed else self._uncompiled[0]

    def compiled(self, sampler: Strategy, problem: str | None = None) -> None:
        """Notes that a sampler is compiled: requests that waited for it now take turns.

        Args:
          sampler: the sampler.
          problem: why it cannot be compiled; requests that waited for it fail with this message.
        """
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
        """Fails all waiting requests, and refuses later ones, because there is no model.

        Args:
          problem: the error message.
        """
        # Without a model no sampler is compiled, so all requests are in `_aside`.
        with self._changed:
            self._problem = problem
            for request in self._aside:
                self._fail(request, problem)
            self._aside.clear()

    # Methods for the thread that writes.

    def next_request(self) -> tuple[Request, int] | None:
        """Waits for a request; returns it and the index of its next image. None: closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_turn or self._closed)
            if self._closed:
                return None
            request = self._current = self._in_turn.popleft()
            return request, [answer.over for answer in request._answers].index(False)

    def show(self, request: Request, number: int, answer: Answer) -> bool:
        """Stores the answer so far for an image; returns whether to continue with the request."""
        with self._changed:
            request._answers[number] = answer
            if time.monotonic() - request._seen > self._patience:
                request._cancelled = True
            return self._goes_on(request)

    def end_turn(self, request: Request) -> None:
        """Ends the turn of a request; one with more images goes to the end of the queue."""
        with self._changed:
            self._current = None
            # No `notify`: the thread that calls this is the only one that waits for requests.
            if self._goes_on(request):
                self._in_turn.append(request)

    def close(self) -> None:
        """Ends both threads once they have finished what they are doing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _goes_on(self, request: Request) -> bool:
        return not request._cancelled and not all(answer.over for answer in request._answers)

    def _fail(self, request: Request, problem: str) -> None:
        request._answers = [Answer(problem=problem)] * len(request.images)
