"""How a run is going: a bar or lines for people, a file of metrics for programs.

    with Progress(folder, total_steps=1200, steps_per_epoch=120) as progress:
        for step in range(1200):
            with progress.waiting():
                batch = next(batches)
            state, metrics = train_step(state, batch)
            progress.record(step, metrics, captions=160)

`metrics.jsonl` has a line for each step: what the step returned, captions per second and the share
of time spent waiting for data. Values are fetched from the devices one step late, so that these
never wait for the host. In a folder on `gs://`, where nothing can be appended to, the file is
written anew by `flush`.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from paligemma_lib.runtime.atomic import atomic_write, is_remote
from paligemma_lib.train.tracking import Tracker

FILE = "metrics.jsonl"

_SECONDS_BETWEEN_LINES = 15.0  # where there is no terminal
_RECENT = 20  # steps that the shown speed is of


class Progress:
    """Follows one run; a context manager.

    Attributes:
      history: the records of all steps and notes, also of those before a restart.
    """

    def __init__(
        self,
        folder: Path,
        *,
        total_steps: int,
        steps_per_epoch: float,
        first_step: int = 0,
        trackers: Sequence[Tracker] = (),
        silent: bool = False,
    ) -> None:
        """Opens `metrics.jsonl`; what it holds of `first_step` and later is done again.

        Whatever cannot be written, here or later, is an OSError.

        Args:
          folder: where it lies, local or, as `atomic.path_of` gives it, remote.
          total_steps: of the whole run.
          steps_per_epoch: to tell the epoch.
          first_step: where this start of the run begins.
          trackers: also get all values, and the images that are shown.
          silent: for all processes but the first: writes and prints nothing.
        """
        self.history = [] if silent else _records_before(folder / FILE, first_step)
        self._latest: dict[str, float] = {}
        self._silent = silent
        self._path = folder / FILE
        self._file = None
        if not silent:
            self._write_all()
            if not is_remote(folder):
                self._file = self._path.open("a", encoding="utf-8")
        self._total, self._steps_per_epoch = total_steps, steps_per_epoch
        self._trackers = trackers
        self._pending: dict[str, Any] | None = None
        self._waited = 0.0
        self._last = time.monotonic()
        self._line_due = 0.0
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            disable=silent or not sys.stderr.isatty(),
            unit="step",
            dynamic_ncols=True,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._bar.close()
        for tracker in self._trackers:
            with contextlib.suppress(Exception):  # what it took was there when it returned
                tracker.close()
        if self._file is not None:
            with contextlib.suppress(OSError):  # told of when it was written
                self._file.close()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in here counts as waiting for data."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here, such as that of a validation, counts as no step's."""
        self.flush()
        start = time.monotonic()
        yield
        self._last += time.monotonic() - start

    def record(self, step: int, metrics: Mapping[str, Any], captions: int) -> None:
        """Takes what a step returned.

        Args:
          step: its number, from 0.
          metrics: scalars, which may still be on their way on the devices; "loss" and
            "learning_rate" are shown.
          captions: in its global batch.
        """
        self._settle()  # the step before: its values are there by now
        now = time.monotonic()
        seconds = max(now - self._last, 1e-9)
        self._pending = {
            "step": step,
            **metrics,
            "captions_per_second": captions / seconds,
            "waiting": self._waited / seconds,
            "seconds": seconds,
        }
        self._last, self._waited = now, 0.0

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Records and prints what is not there at every step, such as a validation loss."""
        self._settle()
        self._write({"step": step, **values})
        self.say(step, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def latest(self, name: str) -> float:
        """The last known value of a metric since this start, 0 before there is one."""
        return self._latest.get(name, 0.0)

    def say(self, step: int, text: str) -> None:
        """Prints a line, with the number of steps done."""
        if not self._silent:
            tqdm.write(f"step {step:,} of {self._total:,}: {text}", file=sys.stderr)

    def show(
        self, step: int, image_id: str, pixels: Callable[[], np.ndarray], caption: str
    ) -> None:
        """Prints the caption of an image; trackers get both.

        Args:
          step: number of steps done.
          image_id: what the data set calls the image.
          pixels: makes uint8[H, W, 3], if it is wanted.
          caption: of the image.
        """
        self.say(step, f"{image_id}: {caption}")
        if self._trackers:
            array = pixels()
            for tracker in self._trackers:
                with _told(tracker):
                    tracker.caption(image_id, array, caption, step)

    def flush(self) -> None:
        """Waits for the last step's values and writes them; to be called before a checkpoint.

        A run that goes on from there would never come to write them.
        """
        self._settle()
        if not self._silent and self._file is None:
            self._write_all()

    def _settle(self) -> None:
        """Waits for the last step's values."""
        if self._pending is None:
            return
        record = {name: float(value) for name, value in self._pending.items()}
        step = int(record["step"])
        self._pending = None
        self._write({**record, "step": step})
        recent = [each for each in self.history[-_RECENT:] if "seconds" in each]
        seconds = sum(each["seconds"] for each in recent) / len(recent)
        waiting = sum(each["waiting"] for each in recent) / len(recent)
        speed = sum(each["captions_per_second"] for each in recent) / len(recent)
        shown = (
            f"epoch {(step + 1) / self._steps_per_epoch:.2f}, loss {record['loss']:.3f}, "
            f"rate {record['learning_rate']:.2g}, {speed:,.0f} captions/s, waiting {waiting:.0%}"
        )
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(step + 1 - self._bar.n)
        # Without a terminal, a line now and then: a log of a line a step would be read by nobody.
        if self._bar.disable and (self._last > self._line_due or step + 1 == self._total):
            self._line_due = self._last + _SECONDS_BETWEEN_LINES
            self.say(step + 1, f"{shown}, {seconds * (self._total - step - 1):,.0f} s left")

    def _write(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self._latest |= record
        if self._silent:
            return
        if self._file is not None:
            try:
                self._file.write(json.dumps(record) + "\n")
                self._file.flush()
            except OSError as error:
                error.filename = str(self._path)  # a full disk does not say what was written
                raise
        values = {name: float(value) for name, value in record.items() if name != "step"}
        for tracker in self._trackers:
            with _told(tracker):
                tracker.scalars(values, record["step"])

    def _write_all(self) -> None:
        with atomic_write(self._path) as file:  # a kill in here must not lose what is there
            file.writelines(json.dumps(each).encode() + b"\n" for each in self.history)


@contextlib.contextmanager
def _told(tracker: Tracker) -> Iterator[None]:
    """Makes one kind of error of those that a tracker has."""
    try:
        yield
    except Exception as error:
        name = type(tracker).__name__
        raise OSError(f"{name} could not write what it was told: {error}") from error


def _records_before(path: Path, step: int) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    records = []
    for line in path.read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):  # the last line may be cut off
            records.append(json.loads(line))
    # What was noted when so many steps were done stays: no step to come brings it again.
    return [r for r in records if r["step"] < step or (r["step"] == step and "seconds" not in r)]
