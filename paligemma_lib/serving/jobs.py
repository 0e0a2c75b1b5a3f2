"""Defines a job, one image to be captioned, and how clients wait for it.

job = engine.submit(image, prompt="caption en", sampler=Greedy(), max_new_tokens=32)
job.add_listener(wake_up)                    # called in another thread, whenever there is news
answer = job.wait(timeout=10)
job.cancel()
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from paligemma_lib.decode.adjustable import Adjustable, is_adjustable
from paligemma_lib.decode.samplers import BestOf
from paligemma_lib.serving.answers import Answer, Stage

if TYPE_CHECKING:
    from paligemma_lib.decode.programs import Strategy
    from paligemma_lib.serving.dispatch import Dispatch


@dataclasses.dataclass(frozen=True)
class Program:
    """What has slots of its own: a way of choosing tokens, and the adapter that is in place."""

    strategy: Strategy
    adapter: str | None = None


def program_of(sampler: Strategy, adapter: str | None = None) -> Program:
    """Returns what writes for a sampler. Greedy and random samplers share one."""
    inner = sampler.sampler if isinstance(sampler, BestOf) else sampler
    return Program(Adjustable() if is_adjustable(inner) else sampler, adapter)


# Compared by identity (`eq=False`), since two clients may ask for the same.
@dataclasses.dataclass(eq=False)
class Job:
    """An image to be captioned.

    Attributes:
      dispatch: where it waits.
      image: bytes of an image file; dropped when the job is over.
      prompt: the prompt.
      sampler: chooses the tokens.
      max_new_tokens: largest number of tokens of a caption.
      seed, number: a caption is that of `generate` with `jax.random.key(seed)` for the image of
        this number.
      client: whose job it is; clients take turns.
      deadline: by the monotonic clock; None: the job may wait forever.
      streamed: whether the text so far is wanted.
      adapter: name of the adapter that writes; None: the base alone.
      attempts: how often a batch with this job has failed.
    """

    dispatch: Dispatch = dataclasses.field(repr=False)
    image: bytes = dataclasses.field(repr=False)
    prompt: str
    sampler: Strategy
    max_new_tokens: int
    seed: int
    number: int
    client: str
    deadline: float | None
    streamed: bool
    adapter: str | None = None
    attempts: int = 0

    def __post_init__(self) -> None:
        self.program = program_of(self.sampler, self.adapter)
        self.begun: float | None = None  # when its image was taken from the queue
        self._over = threading.Event()
        self._showing = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._answer = Answer()

    @property
    def slots(self) -> int:
        """Number of slots it takes: one for each row of an `Adjustable`, else one."""
        return self.sampler.rows if isinstance(self.program.strategy, Adjustable) else 1

    @property
    def answer(self) -> Answer:
        """The answer so far; it is over when `answer.over`."""
        return self._answer

    def stage(self) -> tuple[Stage, int]:
        """Returns what the job waits for, and how many jobs are served first while "waiting"."""
        return self.dispatch.stage(self)

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Has a function called after each news, at least once.

        It must return soon, and must not close the engine: it may hold up all others meanwhile.
        """
        self._listeners.append(listener)
        listener()

    def wait(self, timeout: float | None = None) -> Answer:
        """Waits for the end, or that many seconds, and returns the answer so far."""
        self._over.wait(timeout)
        return self._answer

    def extend_deadline(self, seconds: float) -> None:
        """Lets the job go on for so many seconds from now."""
        self.deadline = time.monotonic() + seconds

    def cancel(self) -> None:
        """Ends the job; its slots are free from the next token on."""
        self.dispatch.end(self, "The request was cancelled.", "cancelled")

    def show(self, answer: Answer) -> None:
        """Stores an answer, unless the job is over already. `Dispatch` and its engine call it."""
        # One thread may end a job while another shows what is written of it.
        with self._showing:
            if self._answer.over:
                return
            self._answer = answer
        if answer.over:
            self.image = b""
            self._over.set()
        for listener in self._listeners:
            listener()
