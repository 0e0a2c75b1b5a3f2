"""Which run a folder of checkpoints holds: told from another one before that goes on from it.

    check_run("workdir/checkpoints", {"config": {"seed": 1}})      # ValueError: config.seed: was 0
    record_of("workdir/checkpoints", 1200)["validation_loss"]

Beside its arrays a checkpoint has a record in JSON, with its own checksum. Nothing here waits for
other processes, opens arrays, or changes the folder.
"""

import contextlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.retries import retry
from paligemma_lib.train.digests import checksum

CHECKPOINTS = "checkpoints"  # their folder in that of a run
RECORD = "run/metadata"  # where Orbax puts the JSON


def check_run(
    folder: str | os.PathLike[str],
    run: Mapping[str, Any],
    allow_changed: Collection[str] = (),
    completed: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> None:
    """Compares a run with the one that saved the newest checkpoint with a whole record.

    Args:
      folder: of the checkpoints, local or `gs://`; need not exist.
      run: what must be the same to go on, as JSON.
      allow_changed: names of what may be another one all the same, with dots between levels.
      completed: gives a record what it lacks, since it is older than names in `run`.

    Raises:
      ValueError: something else is not as it was.
    """
    for step in _steps_in(folder):
        with contextlib.suppress(Exception):  # damaged: restoring tells of it
            before = _flat(completed(record_of(folder, step)["run"]))
            break
    else:
        return
    now = _flat(json.loads(json.dumps(run)))
    # Every field that differs is named with both values: who resumes by mistake sees what the
    # mistake was.
    differing = [
        f"  {name}: was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and name not in allow_changed
    ]
    if differing:
        raise ValueError(
            f"{os.fspath(folder)} holds a run with another configuration, at step {step}:\n"
            + "\n".join(differing)
            + "\nTake another folder, or say which of these may differ"
        )


def record_of(folder: str | os.PathLike[str], step: int) -> dict[str, Any]:
    """What was saved beside the arrays. Raises some error if it is not as it was written."""
    path = path_of(folder) / str(step) / RECORD
    record = json.loads(retry(path.read_text, str(path)))
    if record.pop("checksum") != checksum(record):
        raise ValueError(f"{path} has changed since it was written: its checksum differs")
    return record


def _steps_in(folder: str | os.PathLike[str]) -> list[int]:
    """Newest first."""
    path = path_of(folder)
    names = [each.name for each in path.iterdir()] if path.exists() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {
        name: value
        for key, branch in tree.items()
        for name, value in _flat(branch, f"{prefix}.{key}" if prefix else str(key)).items()
    }
