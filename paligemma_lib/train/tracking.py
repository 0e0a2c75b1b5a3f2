"""What follows a run from outside: TensorBoard, or a tracker of one's own.

A run makes each tracker by calling what its config names with the workdir and the config, so that
TensorBoard's is `TensorBoardTracker(workdir, config)`. Only the first of several processes does.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Tracker(Protocol):
    """Takes what a run has to tell, as it comes; an exception ends the run."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Takes numbers after a step: "loss", "learning_rate", "validation_loss", ..."""
        ...

    def caption(self, image_id: str, image: np.ndarray, caption: str, step: int) -> None:
        """Takes a test image, uint8[H, W, 3], and what the model says of it after so many steps."""
        ...

    def close(self) -> None:
        """Nothing comes any more; also called when the run ends by an error."""
        ...
