"""Checks that the checkpoints in a folder belong to the run that is about to resume from them.

    check_run("workdir/checkpoints", {"config": {"seed": 1}})      # ValueError: config.seed: was 0
    record_of("workdir/checkpoints", 1200)["validation_loss"]

Besides its arrays, a checkpoint contains a JSON record with a checksum. This module only reads
records: it does not wait for other processes, open arrays, or change the folder.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.retries import retry
from paligemma_lib.train.digests import checksum

CHECKPOINTS = "checkpoints"  # folder of the checkpoints in the workdir of a run
RECORD = "run/metadata"  # file in a checkpoint where Orbax writes the JSON record


def check_run(
    folder: str | os.PathLike[str],
    run: Mapping[str, Any],
    allow_changed: Collection[str] = (),
    completed: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> None:
    """Checks that `run` equals the run recorded in the newest checkpoint that can be read.

    Args:
      folder: folder of the checkpoints, local or `gs://`; it need not exist.
      run: settings that must not change when a run resumes, in types that JSON can hold.
      allow_changed: names of settings, or of groups of them, that may differ, with dots between
        levels: `software` allows `software.jax`.
      completed: adds to a recorded run the settings that it lacks, because they are newer than
        the checkpoint.

    Raises:
      ValueError: a setting that is not in `allow_changed` differs.
    """
    step, recorded = newest_run(folder, completed)
    if step is None:
        return
    before = _flat(recorded)
    # Through JSON and back, as the record went: tuples become lists, for example.
    now = _flat(json.loads(json.dumps(run)))
    # The error lists every setting that differs with both values, so that users who resume in the
    # wrong folder see their mistake.
    differing = [
        f"  {name}: was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and not _is_allowed(name, allow_changed)
    ]
    if differing:
        raise ValueError(
            f"{os.fspath(folder)} holds a run with another configuration, at step {step}:\n"
            + "\n".join(differing)
            + "\nUse another folder, or list these settings in allow_changed"
        )


def newest_run(
    folder: str | os.PathLike[str],
    completed: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> tuple[int | None, Mapping[str, Any]]:
    """Returns step and run of the newest checkpoint that can be read; None and {} without one.

    Args and `completed` are those of `check_run`.
    """
    for step in _steps_in(folder):
        try:
            run = record_of(folder, step)["run"]
        except Exception:  # damaged: `restore` reports it
            continue
        return step, completed(run)
    return None, {}


def record_of(folder: str | os.PathLike[str], step: int) -> dict[str, Any]:
    """Returns the JSON record of a checkpoint; raises an exception of any type if it is damaged."""
    path = path_of(folder) / str(step) / RECORD
    record = json.loads(retry(path.read_text, str(path)))
    # The checksum covers the record without the checksum itself.
    if record.pop("checksum") != checksum(record):
        raise ValueError(f"{path} has changed since it was written: its checksum differs")
    return record


def _steps_in(folder: str | os.PathLike[str]) -> list[int]:
    """Returns the steps of all checkpoints, newest first."""
    path = path_of(folder)
    # Orbax also has temporary folders there, whose names are not numbers.
    names = [each.name for each in path.iterdir()] if path.exists() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _is_allowed(name: str, allowed: Collection[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {
        name: value
        for key, branch in tree.items()
        for name, value in _flat(branch, f"{prefix}.{key}" if prefix else str(key)).items()
    }
