"""Knows splits by the names that data sets use for them.

usual_split("Val"), split_in_path("data/test-00000-of-00001.parquet")       # "validation", "test"
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from paligemma_lib.data.sources.hashed_splits import FRACTIONS, HashedSplit
from paligemma_lib.data.sources.protocol import Source
from paligemma_lib.data.sources.split_lists import ListedSplit, list_named
from paligemma_lib.data.sources.table_source import TableSource

# Names that data sets use for the same split.
ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


def usual_split(name: str) -> str:
    """Returns the usual name of a split: "validation" for "Val", for example."""
    name = name.casefold()
    return next((usual for usual, names in ALIASES.items() if name in names), name)


def split_in_path(path: str) -> str:
    """Returns the split in the name of a file, or of the nearest folder that has one, else ""."""
    *folders, name = path.replace(os.sep, "/").split("/")
    for words in (re.split(r"[-_.]", name), *([each] for each in reversed(folders))):
        found = {word for word in words if usual_split(word) in ALIASES}
        if len(found) == 1:
            return found.pop()
    return ""


def chosen_split(found: Mapping[str, Source], split: str, path: str) -> Source:
    """Returns one of the splits that were found in `path`.

    Args:
      found: the data's own splits by name, or all records under the name "".
      split: a name that data sets use for a split, or names joined by "+" for one table. Where
        there are no splits: "train", "validation" or "test"; the path of a list of images; or ""
        for all records.
      path: path of the data, for messages.

    Raises:
      ValueError: there is no such split; the message lists the splits.
    """
    if listed := list_named(path, split):
        if set(found) != {""}:
            raise ValueError(
                f"{path} has splits of its own: {', '.join(found)}. Choose one of them"
            )
        return ListedSplit(found[""], listed)
    if set(found) == {""}:
        if split in ("", *FRACTIONS):
            return HashedSplit(found[""], split) if split else found[""]
        raise ValueError(f"{path} has no splits of its own: use {', '.join(FRACTIONS)}, or none")
    if split in found:
        return found[split]
    names = split.split("+")  # such as train+restval, which together are the training set of COCO
    first = found.get(names[0])
    if isinstance(first, TableSource) and all(name in found for name in names):
        return first.derived(split=split)
    for name, source in found.items():
        if usual_split(name) == usual_split(split):
            return source
    raise ValueError(f"{path} has no split {split!r}; it has {', '.join(found)}: add one as #SPLIT")
