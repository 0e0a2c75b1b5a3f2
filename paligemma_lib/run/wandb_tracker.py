"""Reports a run to Weights & Biases.

tracker = WandbTracker("runs/mine", {"batch_size": 32})
tracker.scalars({"loss": 2.3}, step=100)

The settings are W&B's own: WANDB_API_KEY or `wandb login`, WANDB_PROJECT, WANDB_ENTITY, and
WANDB_MODE=offline, after which `wandb sync` sends what was kept in the workdir.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from paligemma_lib.run.tracked_runs import PROJECT, TrackedRun
from paligemma_lib.runtime.atomic import is_remote

try:
    import wandb
except ImportError as error:
    raise ImportError(
        "the tracker wandb needs wandb: pip install 'paligemma_lib[wandb]'"
    ) from error

# W&B drops values of a step below its newest one. A run that resumes repeats steps, so steps are
# values of their own, which charts have as their axis.
_STEP = "train_step"


class WandbTracker:
    """A `train.Tracker` for Weights & Biases, which sends in a process of its own."""

    def __init__(self, workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
        """Starts a run, or goes on with that of an earlier start in the same workdir.

        Raises:
          PermissionError: there is no API key, and WANDB_MODE is not offline or disabled.
        """
        # If the network is gone, the end of the run would otherwise wait for it for hours. What is
        # left after these seconds stays in the workdir, and `wandb sync` sends it.
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", "60")
        self._exit_code = 0
        offline = os.environ.get("WANDB_MODE", "online") in ("offline", "disabled", "dryrun")
        if not offline and not wandb.login(prompt=False):
            raise PermissionError(
                "no API key of Weights & Biases was found: run `wandb login`, set WANDB_API_KEY, "
                "or set WANDB_MODE=offline"
            )
        run = TrackedRun(workdir, "wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.known() or run.begin(),
            name=run.name,
            resume="allow",
            config=dict(config),
            dir=None if is_remote(run.workdir) else os.fspath(run.workdir),
            allow_val_change=True,
            settings=wandb.Settings(silent=True),
        )
        self._run.define_metric(_STEP)
        self._run.define_metric("*", step_metric=_STEP)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Reports scalars by name."""
        self._run.log({**values, _STEP: step})

    def caption(self, image_id: str, image: np.ndarray, caption: str, step: int) -> None:
        """Reports an image, uint8[H, W, 3], with its caption."""
        self._run.log({f"captions/{image_id}": wandb.Image(image, caption=caption), _STEP: step})

    def failed(self, error: BaseException) -> None:
        """Notes that the run did not come to its end."""
        self._exit_code = 1

    def close(self) -> None:
        """Sends what is left, and ends the run."""
        self._run.finish(self._exit_code)
