"""What a run must have in common with the checkpoints that it goes on from.

checkpoints.save(state, record_of(config, fingerprint(params), data))
check_record(workdir, config)            # ValueError: config.seed: was 0, is 1
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paligemma_lib.data.sources import Source
from paligemma_lib.run.config import FORMER, RunConfig
from paligemma_lib.run.options import ConfigError, parse, renamed
from paligemma_lib.train.compatibility import CHECKPOINTS, check_run


def record_of(config: RunConfig, params: str, data: Mapping[str, Source] = {}) -> dict[str, Any]:
    """The record of a run, as JSON has it.

    Args:
      config: the run.
      params: the fingerprint of the parameters that it starts from.
      data: its sources.
    """
    learned = {split: data[split].fingerprint() for split in ("train", "validation") if data}
    return {"config": config.to_dict(), "params": params, "data": learned}


def completed(record: Mapping[str, Any], data: Mapping[str, str] = {}) -> Mapping[str, Any]:
    """A record as it would be written now: options that are newer had their defaults.

    Args:
      record: of some run.
      data: fingerprints to take where the record is too old to have any.
    """
    before = renamed(record.get("config", {}), FORMER)
    try:
        config = parse(RunConfig, before).to_dict()
    except ConfigError:  # options that are no more, or are another today
        config = _filled(before, RunConfig().to_dict())
    return {"data": data, **record, "config": config}


def _filled(given: Any, default: Any) -> Any:
    if not isinstance(given, Mapping) or not isinstance(default, Mapping):
        return given
    names = {**default, **given}
    return {name: _filled(given.get(name, default.get(name)), default.get(name)) for name in names}


def allowed_changes(config: RunConfig) -> list[str]:
    """Names in the record that need not be as they were."""
    names = [*config.allow_changed, "allow_changed"]
    return [*names, *(f"config.{name}" for name in names)]


def check_record(workdir: Path, config: RunConfig) -> None:
    """Raises ValueError where the workdir holds another run; its data and parameters come later."""
    changes = [*allowed_changes(config), "params", "data.train", "data.validation"]
    check_run(workdir / CHECKPOINTS, record_of(config, ""), changes, completed)
