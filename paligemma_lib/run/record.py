"""Records what a resumed run must share with the checkpoints that it resumes from.

checkpoints.save(state, record_of(config, fingerprint(params), data, tokenizer))
recorded_commits(workdir)                # {"nlphuji/flickr30k@main": "37f3..."}
check_record(workdir, config)            # ValueError: config.seed: was 0, is 1

The record holds the config and fingerprints of all that the run depends on: parameters, data,
tokenizer, and the versions of the packages that compute it.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paligemma_lib.data.fingerprints import same
from paligemma_lib.data.sources import Source
from paligemma_lib.run.config import FORMER, RunConfig
from paligemma_lib.run.data_config import DataConfig
from paligemma_lib.run.options import ConfigError, parse, renamed
from paligemma_lib.tokenizer import Tokenizer
from paligemma_lib.train.compatibility import CHECKPOINTS, check_run, newest_run

# Keys of what is recorded, but not compared: a run that goes on takes it over.
COMMITS = "commits"  # of data sets of the Hub, see `hub_commits`
ORIGIN = "origin"  # of parameters and data, see `run_facts.origin_of`
TEXT_LEN = "text_len"  # text tokens of an example, where the config says 0
_TOLD = (COMMITS, ORIGIN, TEXT_LEN)

# Packages that decode images, encode text, order the data, or compute a step.
SOFTWARE = (
    *("paligemma_lib", "jax", "jaxlib", "optax", "numpy", "tensorflow", "pillow"),
    "sentencepiece",
)

# Options that change when something is saved, tried or said, or the order of sums on devices; but
# not what a step learns.
_LEARN_NOTHING = (
    *("workdir", "allow_changed", "trackers", "keep", "save_every", "save_minutes"),
    *("validate_every", "early_stopping", "max_skipped", "data.max_corrupt"),
    *("export", "export_dtype", "export_best", "evaluate_before", "task", "masks"),
    *("data.test", "test_images", "decode_batch_size", "sampler", "max_new_tokens"),
    *("fsdp", "microbatches", "model.remat"),
)
_CHANGES_SUMS = {"fsdp", "microbatches", "model.remat"}

# Other names under which a package is published.
_ALSO = {"tensorflow": ("tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")}


def record_of(
    config: RunConfig,
    params: str,
    data: Mapping[str, Source] = {},
    tokenizer: Tokenizer | None = None,
) -> dict[str, Any]:
    """Returns the record of a run, in plain values of JSON.

    Args:
      config: the run.
      params: fingerprint of the parameters that the run starts from.
      data: sources of the run, by split.
      tokenizer: the model's tokenizer; None: not known yet.
    """
    return {
        "config": _with_form(config.to_dict()),
        "params": params,
        "data": {split: data[split].fingerprint() for split in ("train", "validation") if data},
        "tokenizer": tokenizer_fingerprint(tokenizer) if tokenizer else "",
        "software": _versions(),
    }


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Returns 16 hexadecimal digits that identify a tokenizer."""
    return hashlib.sha256(tokenizer.serialized()).hexdigest()[:16]


def recorded_commits(workdir: Path) -> Mapping[str, str]:
    """Returns the commits of data sets of the Hub that a run began with; {} if it is a new one."""
    _, run = newest_run(workdir / CHECKPOINTS)
    return run.get(COMMITS, {})


def recorded_text_len(workdir: Path) -> int:
    """Returns the text length that a run began with; 0 if it is a new one, or an older one."""
    _, run = newest_run(workdir / CHECKPOINTS)
    found = run.get(TEXT_LEN, 0)
    return found if type(found) is int else 0


def completed(record: Mapping[str, Any], present: Mapping[str, Any] = {}) -> Mapping[str, Any]:
    """Converts a record of an older version to the present format.

    Options that did not exist when the record was written get their defaults.

    Args:
      record: record of a run, from a checkpoint.
      present: the record of the run as it is now. Its fingerprints stand in for those that the
        older record lacks, so that such runs can be resumed.
    """
    if not isinstance(record.get("config", {}), Mapping):
        return {**present, **record}  # no record of ours; the comparison names it
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
    rest = {name: value for name, value in record.items() if name not in _TOLD}
    # Until 2026-11-29, fingerprints of record files were of their names and sizes alone, and until
    # 2026-11-30, those of images in files of their names and of the rows of tables.
    if isinstance(was := rest.get("data"), Mapping):
        data = present.get("data", {})
        rest["data"] = {
            split: data[split] if split in data and same(str(value), data[split]) else value
            for split, value in was.items()
        }
    if isinstance(software := rest.get("software"), Mapping):  # packages may have been added since
        rest["software"] = {**present.get("software", {}), **software}
    return {**present, **rest, "config": _with_form(config)}


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
    names = [*config.allow_changed, *_LEARN_NOTHING]
    if config.model.dtype == "float16":  # another order of sums may overflow, and skip other steps
        names = [
            name for name in names if name not in _CHANGES_SUMS or name in config.allow_changed
        ]
    if not config.truncate:  # then text is never cut, and more positions change no result
        names.append("text_len")
    # A name of the config's `allow_changed` may also be that of a fingerprint, such as data.train.
    return [*config.allow_changed, *(f"config.{name}" for name in names)]


def check_record(workdir: Path, config: RunConfig) -> None:
    """Raises ValueError if the workdir holds a run with another config or other software.

    Fingerprints of data, tokenizer and parameters are not compared here, as nothing is loaded yet;
    `prepare` compares them.
    """
    changes = [*allowed_changes(config), "params", "data", "tokenizer"]
    present = record_of(config, "")
    known = functools.partial(completed, present=present)
    check_run(workdir / CHECKPOINTS, present, changes, known)


@functools.cache
def _versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for name in SOFTWARE:
        for published in (name, *_ALSO.get(name, ())):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # not installed
                versions.setdefault(name, importlib.metadata.version(published))
    return versions
