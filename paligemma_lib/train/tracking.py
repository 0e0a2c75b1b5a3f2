"""Defines the interface of trackers, which report a run to TensorBoard or another service.

The config of a run names a callable for each tracker. The run calls it with the workdir and the
config, as in `TensorBoardTracker(workdir, config)`. Only the main process has trackers.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

import numpy as np

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Receives the values of a run as they are computed.

    A tracker may also have a method `failed(error: BaseException)`. It is called before `close` if
    an error, or Ctrl-C, ends the run.
    """

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Receives scalars after a step, such as "loss", "learning_rate" or "validation_loss"."""
        ...

    def caption(self, image_id: str, image: np.ndarray, caption: str, step: int) -> None:
        """Receives a test image, uint8[H, W, 3], and its generated caption after `step` steps."""
        ...

    def close(self) -> None:
        """Ends the tracking. The run also calls this when it ends with an error."""
        ...


class Trackers:
    """Several trackers as one. A tracker that raises is logged, closed, and gets nothing more.

    A run of days is worth more than its curves in a service that cannot be reached. As a context
    manager, it closes them on exit.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._each(lambda tracker: getattr(tracker, "failed", _ignore)(error))
        self.close()

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Passes scalars on, see `Tracker`."""
        self._each(lambda tracker: tracker.scalars(values, step))

    def caption(self, image_id: str, image: np.ndarray, caption: str, step: int) -> None:
        """Passes an image and its caption on, see `Tracker`."""
        self._each(lambda tracker: tracker.caption(image_id, image, caption, step))

    def close(self) -> None:
        """Closes all trackers; their errors must not hide one that ends the run."""
        for tracker in self._trackers:
            with contextlib.suppress(Exception):
                tracker.close()

    def _each(self, report: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                report(tracker)
            except Exception as error:  # the client of a service may raise anything
                self._trackers.remove(tracker)
                _log.warning(
                    "%s failed, and gets nothing more of this run: %s: %s",
                    *(type(tracker).__name__, type(error).__name__, error),
                )
                with contextlib.suppress(Exception):
                    tracker.close()


def _ignore(error: BaseException) -> None:
    """Stands in for the method that a tracker need not have."""
