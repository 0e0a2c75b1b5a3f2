"""Defines the interface of trackers, which report a run to TensorBoard or another service.

The config of a run names a callable for each tracker. The run calls it with the workdir and the
config, as in `TensorBoardTracker(workdir, config)`. Only the main process has trackers.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Tracker(Protocol):
    """Receives the values of a run as they are computed. An exception in it ends the run."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Receives scalars after a step, such as "loss", "learning_rate" or "validation_loss"."""
        ...

    def caption(self, image_id: str, image: np.ndarray, caption: str, step: int) -> None:
        """Receives a test image, uint8[H, W, 3], and its generated caption after `step` steps."""
        ...

    def close(self) -> None:
        """Ends the tracking. The run also calls this when it ends with an error."""
        ...
