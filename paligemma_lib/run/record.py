"""Records what a resumed run must share with the checkpoints that it resumes from.

checkpoints.save(state, record_of(config, fingerprint(params), data))
recorded_commits(workdir)                # {"nlphuji/flickr30k@main": "37f3..."}
check_record(workdir, config)            # ValueError: config.seed: was 0, is 1
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paligemma_lib.data.sources import Source
from paligemma_lib.run.config import FORMER, RunConfig
from paligemma_lib.run.data_config import DataConfig
from paligemma_lib.run.options import ConfigError, parse, renamed
from paligemma_lib.train.compatibility import CHECKPOINTS, check_run, newest_run

COMMITS = "commits"  # key of the commits of data sets of the Hub, see `hub_commits`


def record_of(config: RunConfig, params: str, data: Mapping[str, Source] = {}) -> dict[str, Any]:
    """Returns the record of a run, in plain values of JSON.

    Args:
      config: the run.
      params: fingerprint of the parameters that the run starts from.
      data: sources of the run, by split.
    """
    learned = {split: data[split].fingerprint() for split in ("train", "validation") if data}
    return {"config": _with_form(config.to_dict()), "params": params, "data": learned}


def recorded_commits(workdir: Path) -> Mapping[str, str]:
    """Returns the commits of data sets of the Hub that a run began with; {} if it is a new one."""
    _, run = newest_run(workdir / CHECKPOINTS)
    return run.get(COMMITS, {})


def completed(record: Mapping[str, Any], data: Mapping[str, str] = {}) -> Mapping[str, Any]:
    """Converts a record of an older version to the present format.

    Options that did not exist when the record was written get their defaults.

    Args:
      record: record of a run, from a checkpoint.
      data: fingerprints of sources, for records that are too old to have any.
    """
    before = renamed(record.get("config", {}), FORMER)
    if isinstance(data_config := before.get("data"), Mapping):
        # Runs took images as they are stored until 2026-11-29, when upright became the default.
        before = {**before, "data": {"apply_exif": False, **data_config}}
    try:
        config = parse(RunConfig, before).to_dict()
    except ConfigError:
        # The record has options that were removed or have other values today. They stay as they
        # are, so that the comparison names them.
        config = _filled(before, RunConfig().to_dict())
    # What was read from a commit is compared: the fingerprints of the data.
    rest = {name: value for name, value in record.items() if name != COMMITS}
    return {"data": data, **rest, "config": _with_form(config)}


def _with_form(values: dict[str, Any]) -> dict[str, Any]:
    # Configs may say "auto" where records written before 2026-11-28 name the form of the data.
    with contextlib.suppress(ConfigError):
        values["data"]["kind"] = parse(DataConfig, values["data"]).form
    return values


def _filled(given: Any, default: Any) -> Any:
    if not isinstance(given, Mapping) or not isinstance(default, Mapping):
        return given
    names = {**default, **given}
    return {name: _filled(given.get(name, default.get(name)), default.get(name)) for name in names}


def allowed_changes(config: RunConfig) -> list[str]:
    """Returns the names in the record whose values may differ when the run resumes."""
    # A run that stopped at the limit of damaged records goes on with a higher one.
    names = [*config.allow_changed, "allow_changed", "data.max_corrupt"]
    if not config.truncate:  # then text is never cut, and more positions change no result
        names.append("text_len")
    return [*names, *(f"config.{name}" for name in names)]


def check_record(workdir: Path, config: RunConfig) -> None:
    """Raises ValueError if the workdir holds a run with another config.

    Fingerprints of data and parameters are not compared here, as nothing is loaded yet; `prepare`
    compares them.
    """
    changes = [*allowed_changes(config), "params", "data.train", "data.validation"]
    check_run(workdir / CHECKPOINTS, record_of(config, ""), changes, completed)
