"""Reads from the card of a data set of the Hub which files belong to which split.

    configs = configs_in_card({"configs": [{"config_name": "en", "data_files": "en/*.parquet"}]})
    config = chosen_config(configs, "", "OWNER/NAME")
    matching(["en/a.parquet", "de/a.parquet"], config.patterns["train"])     # ["en/a.parquet"]

A card is the YAML at the start of README.md, in the form that the library `datasets` reads. Its
patterns are those of fsspec: `*` stays in a folder, `**` goes through all.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from paligemma_lib.runtime.visible_text import visible

_DEFAULT = "default"
_SHOWN = 3  # examples in a message
_MAX_WILDCARDS = 4
_EXPORTED = re.compile(r"^([^/\n]+)/([^/\n]+)/\d{4}\.parquet$", re.MULTILINE)

_log = logging.getLogger(__name__)


class HubConfig(NamedTuple):
    """One of the configurations of a data set.

    Attributes:
      name: its name.
      patterns: split -> patterns of its files; "" stands for files without a split. If it is empty,
        the names of files tell their splits.
      folder: folder of the files, "" for the whole repository.
      is_default: whether the card says that it is the default one.
    """

    name: str
    patterns: Mapping[str, Sequence[str]]
    folder: str = ""
    is_default: bool = False


def configs_in_card(card: Mapping[str, Any]) -> list[HubConfig]:
    """Returns the configurations that a card has.

    Raises:
      ValueError: an entry of `configs` is not of the form that `datasets` reads.
    """
    entries = card.get("configs") or []
    if not isinstance(entries, list) or not all(isinstance(each, Mapping) for each in entries):
        raise ValueError(f"configs: {str(entries)[:80]} is not a list of configurations")
    found = []
    for entry in entries:
        name, folder = entry.get("config_name", _DEFAULT), entry.get("data_dir") or ""
        if not isinstance(name, str) or not isinstance(folder, str):
            raise ValueError(f"configs: {str(entry)[:80]} has no config_name or data_dir of text")
        folder = folder.removeprefix("./").strip("/")
        patterns = {
            split: [f"{folder}/{each}" if folder else each for each in paths]
            for split, paths in _patterns(entry.get("data_files"), name).items()
        }
        found.append(HubConfig(name, patterns, folder, bool(entry.get("default"))))
    return found


def configs_of_export(files: Sequence[str]) -> list[HubConfig]:
    """Returns the configurations of the Hub's own Parquet export; none if the files are not one.

    Its files are CONFIG/SPLIT/0000.parquet. Of large splits, it has the first 5 GB, in the folder
    CONFIG/partial-SPLIT.
    """
    if not all(_EXPORTED.fullmatch(file) for file in files if not file.startswith(".")):
        return []
    found: dict[str, dict[str, list[str]]] = {}
    for config, folder in dict.fromkeys(_EXPORTED.findall("\n".join(files))):
        if folder.startswith("partial-"):
            _log.warning(
                "the Parquet export has only the first 5 GB of %s", visible(f"{config}/{folder}")
            )
        split = folder.removeprefix("partial-")
        found.setdefault(config, {})[split] = [f"{glob.escape(f'{config}/{folder}/')}*.parquet"]
    return [HubConfig(name, patterns) for name, patterns in found.items()]


def chosen_config(configs: Sequence[HubConfig], wanted: str, name: str) -> HubConfig | None:
    """Returns the configuration that is wanted, or the default one; None if there are none.

    Args:
      configs: all of them.
      wanted: name of a configuration; "" for the default one.
      name: the data set, for messages.

    Raises:
      ValueError: there is no such configuration, or no default one; the message names some.
    """
    shown = ", ".join(each.name for each in configs[:_SHOWN]) + ", ..." * (len(configs) > _SHOWN)
    if wanted:
        for config in configs:
            if config.name == wanted:
                return config
        raise ValueError(f"{name} has no configuration {wanted!r}; it has {shown or 'none'}")
    if len(configs) <= 1:
        return configs[0] if configs else None
    for config in configs:
        if config.is_default:
            return config
    for config in configs:
        if config.name == _DEFAULT:
            return config
    raise ValueError(
        f"{name} has {len(configs)} configurations and no default one: {shown}. Say which, as "
        f"{name}:{configs[0].name}"
    )


def matching(files: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Returns the files that match any pattern, in the order of the patterns, then of the files.

    Raises:
      ValueError: a pattern is malformed, leads out of the repository, or has many wildcards.
    """
    from fsspec.utils import glob_translate  # huggingface_hub needs it, and `datasets` uses it

    found: dict[str, None] = {}
    for pattern in patterns:
        pattern = pattern.removeprefix("./")
        if "://" in pattern or pattern.startswith("/") or ".." in pattern.split("/"):
            raise ValueError(f"{pattern[:80]!r} is outside the repository, and is not fetched")
        # Matching takes time that grows with the power of the wildcards, and cards are not trusted.
        if len(re.findall(r"\*+", pattern)) > _MAX_WILDCARDS:
            raise ValueError(f"{pattern[:80]!r} has more than {_MAX_WILDCARDS} wildcards")
        if pattern in files:  # a name may hold characters of patterns
            found[pattern] = None
            continue
        compiled = re.compile(glob_translate(pattern))
        found |= dict.fromkeys(file for file in files if compiled.match(file))
    return [*found]


def _patterns(given: Any, config: str) -> dict[str, list[str]]:
    """Returns the patterns of each split; "" stands for patterns without one, if all are so."""
    found: dict[str, list[str]] = {}
    for each in given if isinstance(given, list) else [] if given is None else [given]:
        split, paths = "", each
        if isinstance(each, Mapping):
            split, paths = each.get("split", ""), each.get("path")
        paths = paths if isinstance(paths, list) else [paths]
        if not isinstance(split, str) or not all(isinstance(path, str) for path in paths):
            raise ValueError(f"configs, {config}: {str(each)[:80]} is not a split with paths")
        found.setdefault(split, []).extend(paths)
    if "" in found and len(found) > 1:  # `datasets` takes them for train
        found["train"] = [*found.get("train", []), *found.pop("")]
    return found
