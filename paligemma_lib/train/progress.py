"""Reports a run: a progress bar or log lines, and a file of metrics.

    with Progress(folder, total_steps=1200, steps_per_epoch=120) as progress:
        for step in range(1200):
            with progress.waiting():
                batch = next(batches)
            state, metrics = train_step(state, batch)
            progress.record(step, metrics, captions=160)

`metrics.jsonl` has a line for each step: the metrics of the step, captions per second, and the
share of time spent waiting for data. A number that is not finite is null there. Metrics are fetched
from the devices one step late, so that devices never wait for the host. Files on `gs://` cannot be
appended to, so there `flush` writes the whole file again.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from paligemma_lib.runtime.atomic import atomic_write, is_remote
from paligemma_lib.runtime.put_aside import put_aside
from paligemma_lib.runtime.strict_json import dumps
from paligemma_lib.runtime.visible_text import visible
from paligemma_lib.train.metrics_file import FILE, read_metrics
from paligemma_lib.train.tracking import Tracker, Trackers

_SECONDS_BETWEEN_LINES = 15.0  # without a terminal
_RECENT = 20  # steps over which the printed speed is averaged


class Progress:
    """Reports the progress of one run; a context manager.

    Attributes:
      history: records of all steps and notes, including those before a restart.
    """

    def __init__(
        self,
        folder: Path,
        *,
        total_steps: int,
        steps_per_epoch: float,
        first_step: int = 0,
        trackers: Trackers | Sequence[Tracker] = (),
        silent: bool = False,
    ) -> None:
        """Opens `metrics.jsonl`, and drops records of steps that will be done again.

        The constructor and all methods raise OSError if `metrics.jsonl` cannot be written. A line
        of it that is damaged is left out, and the file is kept as `metrics.jsonl.damaged`. A
        tracker that fails is logged and gets nothing more.

        Args:
          folder: folder of `metrics.jsonl`, a path as `atomic.path_of` returns it.
          total_steps: number of steps of the whole run.
          steps_per_epoch: number of steps per epoch, to print the epoch.
          first_step: index of the first step after this start or restart.
          trackers: also receive all metrics, and the images that are shown. They are closed at the
            end; a `Trackers` is left to who made it.
          silent: write and print nothing, for all processes but the main process.
        """
        self.history = [] if silent else _history(folder / FILE, first_step)
        self._latest: dict[str, float] = {}
        self._silent = silent
        self._path = folder / FILE
        self._file = None
        if not silent:
            self._write_all()
            if not is_remote(folder):
                self._file = self._path.open("a", encoding="utf-8")
        self._total, self._steps_per_epoch = total_steps, steps_per_epoch
        self._own = [] if isinstance(trackers, Trackers) else list(trackers)
        self._trackers = trackers if isinstance(trackers, Trackers) else Trackers(self._own)
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
        Trackers(self._own).close()
        if self._file is not None:
            with contextlib.suppress(OSError):  # a failed write has raised before
                self._file.close()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of the block as waiting for data."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of the block, such as a validation, from the time of any step."""
        # Waits for the devices first, so that their work on the last step is not part of the pause.
        self.flush()
        start = time.monotonic()
        yield
        self._last += time.monotonic() - start

    def record(self, step: int, metrics: Mapping[str, Any], captions: int) -> None:
        """Records the metrics of a step.

        Args:
          step: index of the step, from 0.
          metrics: scalars, which devices may still be computing; "loss" and "learning_rate" are
            printed.
          captions: number of captions in the global batch.
        """
        self._settle()  # the previous step, whose metrics are ready by now
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
        """Records and prints values that not every step has, such as a validation loss."""
        self._settle()
        self._write({"step": step, **values})
        self.say(step, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def latest(self, name: str) -> float:
        """Returns the last value of a metric since this start or restart; 0 if it has none."""
        return self._latest.get(name, 0.0)

    def say(self, step: int, text: str) -> None:
        """Prints a line with the number of completed steps."""
        if not self._silent:
            tqdm.write(f"step {step:,} of {self._total:,}: {visible(text)}", file=sys.stderr)

    def show(
        self, step: int, image_id: str, pixels: Callable[[], np.ndarray], caption: str
    ) -> None:
        """Prints the caption of an image, and passes both to the trackers.

        Args:
          step: number of completed steps.
          image_id: name of the image in the data set.
          pixels: returns the image, uint8[H, W, 3]; called only if there are trackers.
          caption: caption of the image.
        """
        self.say(step, f"{image_id}: {caption}")
        if self._trackers:
            self._trackers.caption(image_id, pixels(), caption, step)

    def flush(self) -> None:
        """Waits for the metrics of the last step and writes them.

        Call it before saving a checkpoint: a run that resumes there does not repeat the step, so
        its metrics would be lost.
        """
        self._settle()
        if not self._silent and self._file is None:
            self._write_all()

    def _settle(self) -> None:
        """Fetches the metrics of the last step, then records and prints them."""
        if self._pending is None:
            return
        record = {name: float(value) for name, value in self._pending.items()}
        step = int(record["step"])
        # Cleared first, so that `flush` on exit does not write it again if a tracker fails.
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
        # Without a terminal, a line every few seconds: a line per step would fill the log.
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
                self._file.write(dumps(record) + "\n")
                self._file.flush()
            except OSError as error:
                error.filename = str(self._path)  # errors of a full disk do not name the file
                raise
        values = {name: float(value) for name, value in record.items() if name != "step"}
        self._trackers.scalars(values, record["step"])

    def _write_all(self) -> None:
        with atomic_write(self._path) as file:  # a kill must not lose the old file
            file.writelines(dumps(each).encode() + b"\n" for each in self.history)


def _history(path: Path, first_step: int) -> list[dict[str, Any]]:
    """Returns the records that a run which resumes at `first_step` does not repeat."""
    records, problem = read_metrics(path) if path.is_file() else ([], "")
    if problem:
        put_aside(path, f"{problem}, and left out", keep=True)  # `_write_all` replaces it
    # What was noted after so many completed steps, such as a validation loss, is not repeated. Only
    # records of steps have "seconds".
    return [
        record
        for record in records
        if record["step"] < first_step or (record["step"] == first_step and "seconds" not in record)
    ]
