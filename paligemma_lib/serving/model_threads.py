"""Runs the model for an engine: functions for threads that compile, read images, and write.

    model = ModelThreads(load, dispatch, sizes, readers=2, adapters=["birds"])
    for name, work, recover in model.threads():
        ...

If a batch fails, its jobs go back to the queue. Each is then written alone, so that one that is to
blame fails by itself.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax

from paligemma_lib.captioner import Captioner
from paligemma_lib.serving.dispatch import Dispatch, Entering
from paligemma_lib.serving.jobs import Job, Program
from paligemma_lib.serving.lane import Lane
from paligemma_lib.serving.prompt_reading import Begun, PromptReader, Turns

_log = logging.getLogger(__name__)

_FAILED = "The model failed on this image; the log of the server says why."
_UNLOADED = "The model could not be loaded; the log of the server says why."
_UNCOMPILED = (
    "This way of choosing words does not work with this model; the log of the server says why."
)
_HANG = 300.0  # seconds without any progress, after which a model counts as hanging
_PATIENCE = 0.2  # seconds for which captions wait until others are read, to be written together
_PAUSES = 2  # times that an image takes to read, for which captions that are written wait for more

Function = Callable[[], None]


class Sizes(NamedTuple):
    """Arguments of `Engine` that programs depend on."""

    rows: int
    prompt_tokens: int
    max_new_tokens: int
    look_seconds: float
    apply_exif: bool


class ModelThreads:
    """The model, and what each thread does with it.

    Attributes:
      captioner: the model; None until it is loaded.
      problem: why the model could not be loaded, for who runs it; None: no problem.
      failed_batches: batches that have failed.
      failures: batches, and images that the device could not read, that have failed since a batch
        did not.
    """

    def __init__(
        self,
        load: Callable[[], Captioner],
        dispatch: Dispatch,
        sizes: Sizes,
        readers: int,
        adapters: Sequence[str],
    ):
        """Takes what loads the model and its adapters, and the number of threads that read."""
        self._load, self._adapters, self._turns = load, adapters, Turns()
        self._dispatch = dispatch
        self._sizes = sizes
        self.captioner: Captioner | None = None
        self.problem: str | None = None
        self.failed_batches = self.failures = 0
        self._readers: dict[str | None, PromptReader] = {}  # by the adapter in place
        self._lanes: dict[Program, Lane] = {}
        self._being_read: list[Job | None] = [None] * readers
        self._quickest = math.inf  # seconds in which an image was read
        # When an image was last taken or read, or some tokens were written.
        self._moved = time.monotonic()

    @property
    def tokens(self) -> int:
        """Tokens that have been written."""
        return sum(lane.tokens for lane in list(self._lanes.values()))

    @property
    def hangs(self) -> bool:
        """Whether there is work, and nothing has come of it for long."""
        is_busy = any(self._being_read) or any(lane.is_busy for lane in list(self._lanes.values()))
        return is_busy and time.monotonic() - self._moved > _HANG

    def threads(self) -> Iterator[tuple[str, Function, Function]]:
        """Yields the name of each thread, what it does, and what to do when it has died."""
        yield "prepare", self._prepare, lambda: None
        yield "write", self._write, self._begin_again
        for number in range(len(self._being_read)):
            read = functools.partial(self._read, number)
            yield f"read {number}", read, functools.partial(self._give_back, number)

    def _prepare(self) -> None:
        """Loads the model, and compiles what is wanted."""
        if self.captioner is None:
            try:
                self._readers.clear()  # of a model whose loading has failed
                captioner = self._load()
                self._reader_of(captioner, None).blank()
                for name in self._adapters:
                    self._reader_of(captioner, name)
            except Exception as error:
                _log.exception("The model could not be loaded")
                self.problem = f"The model could not be loaded: {error}"
                # Clients need not know the paths that the cause may name.
                self._dispatch.refuse(_UNLOADED)
                for job in self._dispatch.unfinished():
                    self._dispatch.end(job, _UNLOADED, "server")
                return
            self.captioner = captioner
        while (program := self._dispatch.next_to_compile()) is not None:
            try:
                lane = self._new_lane(self.captioner, program)
            except Exception:
                _log.exception("Compiling for %s failed", program)
                self._dispatch.cannot_compile(program, _UNCOMPILED)
            else:
                self._lanes[program] = lane
                self._dispatch.compiled(program, lane.count)

    def _reader_of(self, captioner: Captioner, adapter: str | None) -> PromptReader:
        if adapter not in self._readers:
            self._readers[adapter] = PromptReader(
                captioner if adapter is None else captioner.with_adapter(adapter),
                self._turns,
                prompt_tokens=self._sizes.prompt_tokens,
                apply_exif=self._sizes.apply_exif,
            )
        return self._readers[adapter]

    def _new_lane(self, captioner: Captioner, program: Program) -> Lane:
        rows, prompt_tokens, max_new_tokens, look_seconds, _ = self._sizes
        reader = self._reader_of(captioner, program.adapter)
        lane = Lane(
            reader.captioner,
            program.strategy,
            count=max(1, rows // program.strategy.rows),
            prompt_tokens=prompt_tokens,
            max_new_tokens=max_new_tokens,
            look_seconds=look_seconds,
        )
        lane.compile(reader.blank())
        return lane

    def _read(self, number: int) -> None:
        """Reads one image after another."""
        while self._read_one(number):
            pass  # while it waits for the next one, it holds nothing of the last

    def _read_one(self, number: int) -> bool:
        job = self._dispatch.next_to_read()
        if job is None:
            return False
        self._being_read[number] = job
        begun: Begun | None = None
        self._moved = begin = time.monotonic()
        try:
            begun = self._readers[job.adapter].read(job)
            self._moved = time.monotonic()
            self._quickest = min(self._quickest, self._moved - begin)
        except ValueError as error:  # a fault of the image or the prompt, told to the client
            self._dispatch.end(job, str(error), "request")
        except Exception as error:
            _log.exception("An image could not be read")
            # Another error may be of an image that is made to cause it, and says nothing of the
            # device: whoever sends such images must not have the server restarted.
            self.failures += isinstance(error, jax.errors.JaxRuntimeError)
            self._dispatch.retry([job], _FAILED)
            self._being_read[number] = None
            return True  # another thread may be reading it by now
        self._dispatch.has_read(job, begun)
        self._being_read[number] = None
        return True

    def _give_back(self, number: int) -> None:
        """Puts the job of a thread back that has died while reading."""
        job, self._being_read[number] = self._being_read[number], None
        if job is not None:
            self._dispatch.retry([job], _FAILED)

    def _write(self) -> None:
        """Lets jobs enter and leave, and writes some tokens for each program in turn."""
        while self._write_some():
            pass  # as in `_read`

    def _write_some(self) -> bool:
        entering = self._next_round()
        if entering is None:
            return False
        for program, lane in list(self._lanes.items()):
            try:
                for job, begun in entering.get(program, []):
                    lane.enter(job, begun)
                was_busy = lane.is_busy
                for job in lane.advance():
                    self._dispatch.left(job)
                if was_busy:  # a lane without jobs says nothing of the model
                    self.failures, self._moved = 0, time.monotonic()
            except Exception:
                _log.exception("A batch has failed")
                self.failures += 1
                self.failed_batches += 1
                self._retry(program, lane)
        return True

    def _next_round(self) -> Entering | None:
        # How long reading takes depends on the device. The quickest one says it best: others have
        # waited for each other, or for a large image to be decoded.
        return self._dispatch.next_round(_PATIENCE, _PAUSES * self._quickest)

    def _begin_again(self) -> None:
        """Puts all jobs back that were being written when the thread died."""
        for program, lane in list(self._lanes.items()):
            self._retry(program, lane)

    def _retry(self, program: Program, lane: Lane) -> None:
        lane.reset()
        self._dispatch.retry_written(program, _FAILED)
