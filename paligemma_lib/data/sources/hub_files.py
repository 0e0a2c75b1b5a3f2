"""Chooses from the names in a repository of the Hub the files that are needed to open its data.

    parts = parts_of(["data/train-0.parquet", "README.md"], reference, configs, split="train")
    parts[""].files                                     # ["data/train-0.parquet"]

A card that maps splits to files is followed. Without one, names tell the form as in a local folder:
a table such as metadata.csv with its images; else .arrow, .parquet or .tar files; else TFRecords;
else images with texts beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from paligemma_lib.data.sources.file_names import (
    PACKED,
    is_image,
    is_packed,
    is_table,
    is_tfrecord,
    is_usual_table,
)
from paligemma_lib.data.sources.hub_configs import HubConfig, chosen_config, matching
from paligemma_lib.data.sources.hub_reference import HubReference
from paligemma_lib.data.sources.sidecar import TEXT_SUFFIXES
from paligemma_lib.data.sources.split_names import ALIASES, split_in_path, usual_split

# What else a folder of TFRecords or Arrow files needs.
_INFO = ("dataset_info.json", "dataset_dict.json", "features.json")
_SHOWN = 3  # examples in a message


class Part(NamedTuple):
    """Files that are opened together.

    Attributes:
      files: paths in the repository.
      opened: the table or folder to open; None: the files themselves, one after the other.
      images: folder of the images of a table, if they are not below the table's folder.
    """

    files: Sequence[str]
    opened: str | None = None
    images: str | None = None


def parts_of(
    files: Sequence[str], reference: HubReference, configs: Sequence[HubConfig], split: str = ""
) -> dict[str, Part]:
    """Returns the parts by split; "" stands for files that tell their splits themselves.

    Args:
      files: paths of all files in the repository.
      reference: place of the data in the repository.
      configs: configurations of the data set.
      split: the one split that is wanted, so that files of others may be left out; "": all.

    Raises:
      FileNotFoundError: there is no such path or configuration in the repository.
      ValueError: nothing in it has a known form, or there is no such split.
    """
    name = reference.name
    seen = [file for file in files if not _is_hidden(file)]
    if reference.path:
        return {"": _of_path(seen, reference)}
    config = chosen_config(configs, reference.config, name)
    if config is None or not config.patterns:
        folder = config.folder if config else ""
        return {"": Part(_of_split(_of_folder(seen, folder, name), folder, split), folder)}
    groups = {each: matching(seen, patterns) for each, patterns in config.patterns.items()}
    if empty := [each for each, found in groups.items() if not found]:
        raise FileNotFoundError(
            f"{name}: the card of the data set names files of {', '.join(empty)} that do "
            f"not exist: {', '.join(config.patterns[empty[0]])[:200]}"
        )
    return {each: _of_group(groups[each], seen, name) for each in _wanted([*groups], split, name)}


def told(files: Sequence[str]) -> str:
    """Returns how many files there are of each suffix: "2 .parquet"."""
    suffixes = Counter(file.rpartition("/")[2].rpartition(".")[2] for file in files)
    return ", ".join(f"{count:,} .{suffix}" for suffix, count in suffixes.most_common(_SHOWN))


def _is_hidden(file: str) -> bool:
    return any(part.startswith((".", "__")) for part in file.split("/")) or file == "README.md"


def _of_path(files: Sequence[str], reference: HubReference) -> Part:
    path = reference.path
    if path in files:
        return _of_group([path], files, reference.name)
    if any(file.startswith(f"{path}/") for file in files):
        return Part(_of_folder(files, path, reference.name), path)
    if found := [file for file in matching(files, [path]) if is_packed(file)]:
        return Part(found)
    raise FileNotFoundError(
        f"{reference.name} has no file or folder {path}; it has {_some(files) or 'no files'}"
    )


def _of_group(group: Sequence[str], files: Sequence[str], name: str) -> Part:
    """Returns a part of files that belong together; a table gets its images."""
    if packed := [each for each in group if is_packed(each)]:
        if len({each.rpartition(".")[2] for each in packed}) > 1:
            raise ValueError(f"{name} has files of several forms in a split: {_some(packed)}")
        return Part(packed)
    only = group[0] if len(group) == 1 else ""
    tables = [each for each in group if is_table(each)]
    if not tables and only.endswith(".txt"):
        tables = [only]
    if not tables and not any(is_image(each) or is_tfrecord(each) for each in group):
        raise _unknown(group, files, name)
    if len(tables) != 1:
        return Part(group, None if only else "")
    (table,) = tables
    if not (images := list(filter(is_image, group))):
        images = _below(table.rpartition("/")[0], filter(is_image, files))
    if images:
        return Part([table, *images], table)
    return Part([table, *filter(is_image, files)], table, "")


def _of_folder(files: Sequence[str], folder: str, name: str) -> list[str]:
    """Returns the files below a folder that its form needs."""
    below = _below(folder, files)
    images = list(filter(is_image, below))
    info = [file for file in below if file.rpartition("/")[2] in _INFO]
    if (tables := list(filter(is_usual_table, below))) and images:
        return [*tables, *images]
    for suffix in PACKED:
        if packed := [each for each in below if is_packed(each) and each.endswith(suffix)]:
            return [*packed, *info]
    if records := list(filter(is_tfrecord, below)):
        return [*records, *info]
    texts = [file for file in below if file.endswith(TEXT_SUFFIXES)]
    stems = {text.rpartition(".")[0] for text in texts}
    if any(image.rpartition(".")[0] in stems for image in images):
        return [*images, *texts]
    raise _unknown(below, files, name)


def _unknown(found: Sequence[str], files: Sequence[str], name: str) -> ValueError:
    """Returns an error that tells what helps where none of the files found has a known form."""
    repo = name.partition("@")[0]
    script = f"{repo.rpartition('/')[2]}.py"
    if script in files:
        return ValueError(
            f"{name} has a loading script only, {script}, and this library runs no code of data "
            "sets. "
            "Its Parquet export, if the Hub could make one, is revision refs/convert/parquet: "
            f"{repo}@refs/convert/parquet"
        )
    cure = f"try its Parquet export, {repo}@refs/convert/parquet"
    if tables := list(filter(is_table, found)):
        cure = f"give one of its tables, as hf://datasets/{name}/{tables[0]}"
    return ValueError(
        f"{name} has no data in a known format among its files: {_some(found) or 'none'}. "
        f"Expected a table of images such as metadata.csv, .parquet, .arrow or .tar; {cure}"
    )


def _of_split(files: list[str], folder: str, split: str) -> list[str]:
    """Leaves out files of other splits, if folders or names of packed files tell the splits."""
    below = {file: file[len(f"{folder}/") if folder else 0 :] for file in files}
    parts = {file: usual_split(path.partition("/")[0]) for file, path in below.items()}
    if not any(part in ALIASES for part in parts.values()) and all(map(is_packed, files)):
        parts = {file: usual_split(split_in_path(path)) for file, path in below.items()}
    chosen = [file for file in files if parts[file] == usual_split(split)]
    return chosen if chosen and all(part in ALIASES for part in parts.values()) else files


def _wanted(splits: Sequence[str], split: str, name: str) -> Sequence[str]:
    if not split or splits == [""]:
        return splits
    for found in (
        [each for each in splits if each == split],
        [each for each in splits if usual_split(each) == usual_split(split)],
    ):
        if found:
            return found[:1]
    raise ValueError(
        f"{name} has no split {split!r}; it has {', '.join(splits)}: say which, as #SPLIT"
    )


def _below(folder: str, files: Sequence[str] | filter) -> list[str]:
    return [file for file in files if not folder or file.startswith(f"{folder}/")]


def _some(files: Sequence[str]) -> str:
    return ", ".join(files[:_SHOWN]) + ", ..." * (len(files) > _SHOWN)
