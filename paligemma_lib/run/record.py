"""What a run must have in common with the checkpoints that it goes on from.

checkpoints.save(state, record_of(config, fingerprint(params)))
check_record(workdir, config)            # ValueError: config.seed: was 0, is 1
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paligemma_lib.run.config import FORMER, RunConfig
from paligemma_lib.run.options import ConfigError, parse, renamed
from paligemma_lib.train.compatibility import CHECKPOINTS, check_run


def record_of(config: RunConfig, params: str) -> dict[str, Any]:
    """The record of a run, as JSON has it; `params` is the fingerprint of where it started."""
    return {"config": config.to_dict(), "params": params}


def completed(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record as it would be written now: options that are newer had their defaults."""
    before = renamed(record.get("config", {}), FORMER)
    try:
        return {**record, "config": parse(RunConfig, before).to_dict()}
    except ConfigError:  # options that are no more, or are another today
        return {**record, "config": _filled(before, RunConfig().to_dict())}


def _filled(given: Any, default: Any) -> Any:
    if not isinstance(given, Mapping) or not isinstance(default, Mapping):
        return given
    names = {**default, **given}
    return {name: _filled(given.get(name, default.get(name)), default.get(name)) for name in names}


def allowed_changes(config: RunConfig) -> list[str]:
    """Names in the record that need not be as they were."""
    return [f"config.{name}" for name in (*config.allow_changed, "allow_changed")]


def check_record(workdir: Path, config: RunConfig) -> None:
    """Raises ValueError where the workdir holds another run; parameters are not known yet."""
    changes = [*allowed_changes(config), "params"]
    check_run(workdir / CHECKPOINTS, record_of(config, ""), changes, completed)
