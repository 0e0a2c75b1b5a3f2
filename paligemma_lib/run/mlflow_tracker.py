"""Reports a run to MLflow.

tracker = MlflowTracker("runs/mine", {"batch_size": 32})
tracker.scalars({"loss": 2.3}, step=100)

The settings are MLflow's own: MLFLOW_TRACKING_URI, by default a database in the working directory,
and MLFLOW_EXPERIMENT_NAME.
"""

import math
import os
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from paligemma_lib.run.tracked_runs import PROJECT, TrackedRun, flat

try:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
except ImportError as error:
    raise ImportError(
        "the tracker mlflow needs mlflow: pip install 'paligemma_lib[mlflow]'"
    ) from error

_MAX_PARAM = 6000  # characters
_MAX_PARAMS = 100  # of one request


class MlflowTracker:
    """A `train.Tracker` for MLflow; each call waits for the server or the database."""

    def __init__(self, workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
        """Starts a run, or goes on with that of an earlier start in the same workdir."""
        # A server that is gone would otherwise be asked again for minutes, while the run waits.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._client = MlflowClient()
        self._status = "FINISHED"
        run = TrackedRun(workdir, "mlflow")
        self._id = run.known() or ""
        if self._id:
            self._client.update_run(self._id, status="RUNNING")
        else:
            started = self._client.create_run(_experiment(self._client), run_name=run.name)
            self._id = run.begin(started.info.run_id)
            # Parameters of a run cannot change. What a resumed run has changed is in config.json.
            params = [Param(name, str(value)[:_MAX_PARAM]) for name, value in flat(config).items()]
            for first in range(0, len(params), _MAX_PARAMS):
                self._client.log_batch(self._id, params=params[first : first + _MAX_PARAMS])
        self._client.log_dict(self._id, dict(config), "config.json")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Reports scalars by name; those that are not finite are left out."""
        now = int(1000 * time.time())
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        metrics = [Metric(_key(name), value, now, step) for name, value in finite.items()]
        self._client.log_batch(self._id, metrics=metrics, synchronous=True)

    def caption(self, image_id: str, image: np.ndarray, caption: str, step: int) -> None:
        """Reports an image, uint8[H, W, 3], and a text beside it."""
        place = f"captions/{_key(image_id).replace('/', '_')}/step_{step:08d}"
        self._client.log_image(self._id, image, artifact_file=f"{place}.png")
        self._client.log_text(self._id, caption, f"{place}.txt")

    def failed(self, error: BaseException) -> None:
        """Notes that the run did not come to its end: FAILED, or KILLED by Ctrl-C."""
        self._status = "FAILED" if isinstance(error, Exception) else "KILLED"

    def close(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._id, self._status)


def _experiment(client: MlflowClient) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


def _key(name: str) -> str:
    """Returns a name with the characters that MLflow allows."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)[:200]
