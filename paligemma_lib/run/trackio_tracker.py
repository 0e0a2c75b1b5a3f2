"""Reports a run to trackio, which keeps it on this machine, or in a Space of the Hugging Face Hub.

tracker = TrackioTracker("runs/mine", {"batch_size": 32})
tracker.scalars({"loss": 2.3}, step=100)

The settings are trackio's own, such as TRACKIO_DIR and TRACKIO_SPACE_ID; TRACKIO_PROJECT names the
project. `trackio show` opens the page.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from paligemma_lib.run.tracked_runs import PROJECT, TrackedRun, flat

try:
    import trackio
except ImportError as error:
    raise ImportError(
        "the tracker trackio needs trackio: pip install 'paligemma_lib[trackio]'"
    ) from error


class TrackioTracker:
    """A `train.Tracker` for trackio, which stores in a thread of its own."""

    def __init__(self, workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
        """Starts a run, or goes on with that of an earlier start in the same workdir."""
        run = TrackedRun(workdir, "trackio")
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=run.known() or run.begin(),
            config={name: str(value) for name, value in flat(config).items()},
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Reports scalars by name."""
        self._run.log({name: float(value) for name, value in values.items()}, step=step)

    def caption(self, image_id: str, image: np.ndarray, caption: str, step: int) -> None:
        """Reports an image, uint8[H, W, 3], with its caption."""
        shown = trackio.Image(np.ascontiguousarray(image), caption=caption)
        self._run.log({f"captions/{image_id}": shown}, step=step)

    def close(self) -> None:
        """Stores what is left, and ends the run."""
        self._run.finish()
