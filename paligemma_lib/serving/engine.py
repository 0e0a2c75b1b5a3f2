"""Captions images of many clients with one model, all at once: the engine below every server.

    engine = Engine(lambda: pg.captioner.load("nano"))
    job = engine.submit(image, prompt="caption en", sampler=Beam(4), max_new_tokens=32)
    print(job.wait().text)
    engine.drain(30)

One thread loads the model and compiles. Some threads read images, each alone. One writes captions:
jobs enter free slots and leave them between tokens, so nobody waits for the last word of somebody
else. A caption does not depend on which other jobs there are, see `decode.slots`.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterable, Sequence

from paligemma_lib.captioner import Captioner
from paligemma_lib.decode.loop import MAX_TOKENS, check_sampler
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.decode.samplers import MAX_ROWS, Greedy
from paligemma_lib.runtime.bounds import real, whole
from paligemma_lib.serving.admission import Bounds
from paligemma_lib.serving.dispatch import Dispatch
from paligemma_lib.serving.jobs import Job, Program, program_of
from paligemma_lib.serving.model_threads import ModelThreads, Sizes
from paligemma_lib.serving.workers import Workers

_PARTING = 10.0  # seconds for threads to finish what they are doing when an engine is closed
_UNWELL = 3  # failed batches in a row after which an engine counts as broken


class Engine:
    """One model that serves all clients in this process.

    Attributes:
      rows, max_new_tokens, adapters: as given.
    """

    def __init__(
        self,
        load: Callable[[], Captioner],
        *,
        prepare: Iterable[Strategy] = (Greedy(),),
        rows: int = 32,
        prompt_tokens: int = 64,
        max_new_tokens: int = 64,
        look_seconds: float = 0.05,
        max_waiting: int = 256,
        max_per_client: int = 128,
        max_bytes: int = 1 << 30,
        apply_exif: bool = True,
        adapters: Sequence[str] = (),
    ):
        """Starts loading the model in the background, and returns at once.

        Args:
          load: returns the model; called once, or again if its thread dies.
          prepare: samplers to compile before a request needs them, in this order.
          rows: rows of captions that are written at a time by one program. A beam takes one.
          prompt_tokens: largest number of tokens of a prompt, BOS and newline counted.
          max_new_tokens: largest number of tokens of a caption.
          look_seconds: seconds after which jobs may enter and leave, if no caption ends before. A
            token that takes longer is not interrupted.
          max_waiting, max_per_client, max_bytes: see `Bounds`; more raises `Busy`.
          apply_exif: whether to turn images upright by their EXIF orientation.
          adapters: names of the model's adapters that jobs may ask for. They share its weights, and
            each has programs and slots of its own.

        Raises:
          ValueError: an argument is out of range.
        """
        self.rows = whole("Engine: rows", rows, 1, MAX_ROWS)
        self.max_new_tokens = whole("Engine: max_new_tokens", max_new_tokens, 1, MAX_TOKENS)
        sizes = Sizes(
            self.rows,
            whole("Engine: prompt_tokens", prompt_tokens, 2, MAX_TOKENS),
            self.max_new_tokens,
            real("Engine: look_seconds", look_seconds, least=0),
            apply_exif,
        )
        self.adapters = tuple(adapters)
        if not all(self.adapters):
            raise ValueError("Engine: an adapter has an empty name")
        readers = min(8, max(2, os.cpu_count() or 2))
        bounds = Bounds(max_waiting, max_per_client, max_bytes)
        self._max_waiting = bounds.max_waiting
        self._dispatch = Dispatch(bounds, ahead=2 * readers)
        asked = [program_of(each, name) for name in (None, *self.adapters) for each in prepare]
        self._dispatch.prepare(asked)
        self._model = ModelThreads(load, self._dispatch, sizes, readers, self.adapters)
        self._workers = Workers()
        for name, work, recover in self._model.threads():
            self._workers.add(name, work, recover)
        # Hooks run from the last to the first: this one before those of JAX.
        atexit.register(self.close)
        self._workers.start(self._end_late_jobs)

    @property
    def captioner(self) -> Captioner | None:
        """The model; None until it is loaded."""
        return self._model.captioner

    @property
    def problem(self) -> str | None:
        """Why the model could not be loaded, for who runs the engine; None: no problem."""
        return self._model.problem

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and all programs of `prepare` are compiled."""
        return self._dispatch.is_prepared()

    @property
    def program_problems(self) -> dict[Program, str]:
        """Programs that cannot be compiled, and what clients are told; their jobs end at once."""
        return self._dispatch.program_problems()

    @property
    def is_full(self) -> bool:
        """Whether `max_waiting` images wait, so that `submit` would raise `Busy`."""
        return self._dispatch.counts()[0] >= self._max_waiting

    @property
    def healthy(self) -> bool:
        """Whether captions can be expected, now or once the model is loaded."""
        model = self._model
        return model.problem is None and model.failures < _UNWELL and not model.hangs

    def counts(self) -> dict[str, int]:
        """Returns jobs "waiting" and "writing", and "tokens", failures and restarts so far."""
        waiting, writing = self._dispatch.counts()
        return {
            "waiting": waiting,
            "writing": writing,
            "tokens": self._model.tokens,
            "failed_batches": self._model.failed_batches,
            "restarts": self._workers.restarts,
        }

    def is_compiled(self, sampler: Strategy, adapter: str | None = None) -> bool:
        """Returns whether captions with this sampler need not wait for compilation."""
        return self._dispatch.is_compiled(program_of(sampler, adapter))

    def submit(
        self,
        image: bytes,
        *,
        prompt: str = "caption en",
        sampler: Strategy = Greedy(),  # noqa: B008 (frozen)
        max_new_tokens: int | None = None,
        seed: int = 0,
        number: int = 0,
        client: str = "",
        seconds: float | None = None,
        streamed: bool = False,
        adapter: str | None = None,
    ) -> Job:
        """Queues an image to be captioned, and returns its job at once.

        The caption is the one of `decode.generate` with `key=jax.random.key(seed)` for the image
        with this number, up to the rounding of another batch size.

        Args:
          image: bytes of an image file, as for `data.decode_image`.
          prompt: the prompt.
          sampler: chooses the tokens; `BestOf` takes as many rows as it has. Greedy and random
            samplers share a program; any other is compiled when a job first needs it.
          max_new_tokens: largest number of tokens, at most the engine's; None: that.
          seed, number: for samplers that draw at random.
          client: whose image it is; clients take turns.
          seconds: time until the job is ended without a caption; None: as long as it takes.
          streamed: whether the job shows its text so far.
          adapter: name of the adapter that is to write; None: the base alone.

        Raises:
          ValueError: an argument is out of range or of another type.
          Busy: too much is waiting already.
          Unavailable: the engine has no model, drains, or is closed.
        """
        if not isinstance(image, bytes):
            raise ValueError(f"submit: image is of type {type(image).__name__}, expected bytes")
        if not isinstance(prompt, str):
            raise ValueError(f"submit: prompt is of type {type(prompt).__name__}, expected str")
        check_sampler("submit", sampler)
        if adapter is not None and adapter not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise ValueError(f"submit: adapter={adapter!r:.80}, expected one of: {known}")
        whole("submit: rows of the sampler", sampler.rows, 1, self.rows)
        limit = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        limit = whole("submit: max_new_tokens", limit, 1, self.max_new_tokens)
        seed = whole("submit: seed", seed, 0, 2**63 - 1)
        number = whole("submit: number", number, 0, 2**32 - 1)
        if seconds is not None:
            seconds = time.monotonic() + real("submit: seconds", seconds, above=0)
        job = Job(
            self._dispatch, image, prompt, sampler, limit, seed, number, client, seconds, streamed,
            adapter,
        )  # fmt: skip
        self._dispatch.put(job)
        return job

    def drain(self, seconds: float) -> bool:
        """Refuses new jobs, waits for those that are there, and stops the engine.

        Args:
          seconds: the longest wait; jobs that are left then end with a problem.

        Returns:
          Whether all jobs were done in time.
        """
        self._dispatch.refuse("The server is shutting down.")
        end = time.monotonic() + seconds
        while (left := self._dispatch.unfinished()) and time.monotonic() < end:
            left[0].wait(min(1.0, max(0.0, end - time.monotonic())))
        self.stop()
        return not left

    def stop(self) -> None:
        """Ends all jobs, and tells all threads to end; `close` waits for them, too."""
        self._workers.close()
        self._dispatch.close()

    def close(self) -> None:
        """Ends all jobs, and all threads; waits a while for what these are doing at the moment.

        It is also called when Python ends.
        """
        self.stop()
        self._workers.join(_PARTING)
        atexit.unregister(self.close)

    def _end_late_jobs(self) -> None:
        now = time.monotonic()
        for job in self._dispatch.unfinished():
            if job.deadline is not None and job.deadline < now:
                self._dispatch.end(job, "The caption took too long.", "deadline")
