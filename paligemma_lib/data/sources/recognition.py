"""Recognises the form of data by their content, and finds their splits.

    source = open_source("dataset_flickr8k.json", split="test", images="Flicker8k_Dataset")
    for name, source in splits_of("my_images").items(): print(name, len(source))

A path may end in "#" and the name of a split: `captions.csv#train`.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
from collections.abc import Iterator

from paligemma_lib.data.files import join, read_whole
from paligemma_lib.data.sources.hashed_splits import FRACTIONS, Subset
from paligemma_lib.data.sources.image_folder import ImageFolder
from paligemma_lib.data.sources.json_forms import USUAL, Columns
from paligemma_lib.data.sources.parquet_source import ArrowSource
from paligemma_lib.data.sources.protocol import Source
from paligemma_lib.data.sources.sidecar import SidecarSource
from paligemma_lib.data.sources.table_forms import form_of_json
from paligemma_lib.data.sources.table_source import MAX_TABLE_BYTES, TableSource, folder_of
from paligemma_lib.data.sources.tf_examples import from_tfrecords
from paligemma_lib.data.sources.tfds_source import from_tfds
from paligemma_lib.data.sources.webdataset_source import WebDatasetSource, shards_of
from paligemma_lib.runtime.atomic import is_remote

# Names that data sets use for the same split.
_ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
# Names of tables in a folder, and how each is read. The first one that exists is used.
_TABLES = (
    ("captions.txt", "captions.txt"),
    ("captions.csv", "delimited"),
    ("results.csv", "delimited"),  # Flickr30k
    ("metadata.csv", "delimited"),  # imagefolder
    ("metadata.jsonl", "jsonl"),
    ("Flickr8k.token.txt", "tokens"),
    ("captions.tsv", "delimited"),
)
_IMAGE_FOLDERS = ("Images", "images", "flickr30k_images", "Flicker8k_Dataset")


def open_source(
    path: str, *, split: str = "", images: str = "", columns: Columns = USUAL
) -> Source:
    """Opens data of any known form.

    Args:
      path: a file, a folder, or a pattern of files; `PATH#SPLIT` names a split.
      split: one of the data's own splits. If the data have none, "train", "validation" or "test"
        selects a fraction by a hash of the image id, and "" all records.
      images: the folder of images, if it is not beside the table.
      columns: names of the columns or keys of image and caption, if they are not the usual ones.

    Raises:
      FileNotFoundError: `path` does not exist.
      ValueError: the data have no known form, or have no such split; the message lists the splits.
    """
    # A path that exists is taken whole, since the name of a file or folder may contain "#".
    path, _, named = path.partition("#") if not os.path.exists(path) else (path, "", "")
    split = split or named
    found = splits_of(path, images=images, columns=columns)
    if set(found) == {""}:
        if split in ("", *FRACTIONS):
            return Subset(found[""], split) if split else found[""]
        raise ValueError(f"{path} has no splits of its own: take {', '.join(FRACTIONS)}, or none")
    for name in (split, *_ALIASES.get(split, ())):
        if name in found:
            return found[name]
    raise ValueError(
        f"{path} has no split {split!r}; it has {', '.join(found)}: say which, as #SPLIT"
    )


def is_path(name: str) -> bool:
    """Returns whether a text is the path of data, and not the name of a split.

    A path exists, or looks like a path: it contains a separator, a pattern or a suffix.
    """
    path = name.partition("#")[0]
    if os.path.exists(path) or is_remote(path) or any(mark in path for mark in "*?{/\\"):
        return True
    # A split of TFDS may have dots, but only in brackets.
    return "." in path.partition("[")[0]


def splits_of(path: str, *, images: str = "", columns: Columns = USUAL) -> dict[str, Source]:
    """Returns the data's own splits by name, or all records under the name "" if there are none.

    Args and errors are those of `open_source`.
    """
    if any(mark in path for mark in "*?{") or path.endswith(".tar"):
        return {"": _of_files(path, columns)}
    if is_remote(path) or os.path.isfile(path):
        return dict(_of_file(path, images, columns))
    if not os.path.isdir(path):
        raise FileNotFoundError(f"{path} is not there: expected a file or a folder")
    return dict(_of_folder(path, images, columns))


def _of_files(pattern: str, columns: Columns) -> Source:
    paths = shards_of(pattern)
    if paths[0].endswith(".tar"):
        return WebDatasetSource(paths)
    if paths[0].endswith((".parquet", ".arrow")):
        return ArrowSource(paths, columns)
    return from_tfrecords(pattern)


def _of_file(path: str, images: str, columns: Columns) -> Iterator[tuple[str, Source]]:
    name = path.rpartition("/")[2].lower()
    if name.endswith((".parquet", ".arrow")):
        yield "", ArrowSource((path,), columns)
    elif ".tfrecord" in name or ".array_record" in name:
        yield "", from_tfrecords(path)
    else:
        form = _form_of(path, name)
        folder = images or _images_beside(folder_of(path))
        yield from _splits_of_table(TableSource(form, path, folder, columns=columns))


def _form_of(path: str, name: str) -> str:
    if name.endswith(".jsonl"):
        return "jsonl"
    if name.endswith(".json"):
        try:
            return form_of_json(read_whole(path, MAX_TABLE_BYTES))
        except ValueError as error:
            raise ValueError(f"{path}, {error}") from error
    if name.endswith(".token.txt") or name.endswith(".token"):
        return "tokens"
    if name == "captions.txt":
        return "captions.txt"
    if name.endswith((".csv", ".tsv", ".txt")):
        return "delimited"
    raise ValueError(
        f"{path} is of no known form: expected .jsonl, .json, .csv, .tsv, .txt, .parquet, .arrow, "
        ".tar, .tfrecord or .array_record, or a folder of images"
    )


def _splits_of_table(source: TableSource) -> Iterator[tuple[str, Source]]:
    names = dict.fromkeys(row_split for row_split in source.splits() if row_split)
    if not names:
        yield "", source
    for name in names:
        yield name, dataclasses.replace(source, split=name)


def _of_folder(folder: str, images: str, columns: Columns) -> Iterator[tuple[str, Source]]:
    names = sorted(os.listdir(folder))
    # Both TFDS and `save_to_disk` of Hugging Face write a dataset_info.json; the latter beside its
    # .arrow files.
    if "dataset_info.json" in names and not any(name.endswith(".arrow") for name in names):
        info = json.loads(read_whole(join(folder, "dataset_info.json"), MAX_TABLE_BYTES))
        yield from ((split["name"], from_tfds(folder, split["name"])) for split in info["splits"])
        return
    for table, form in _TABLES:
        if table in names:
            beside = images or _images_beside(folder)
            yield from _splits_of_table(TableSource(form, join(folder, table), beside, "", columns))
            return
    parts = [name for name in names if any(name in each for each in _ALIASES.values())]
    if parts and all(os.path.isdir(join(folder, name)) for name in parts):
        for name in parts:  # each split has its own folder
            yield name, open_source(join(folder, name), images=images, columns=columns)
        return
    for suffix in (".arrow", ".parquet", ".tar"):
        if paths := sorted(glob.glob(join(folder, f"**/*{suffix}"), recursive=True)):
            yield from _splits_of_files(paths, suffix, columns)
            return
    if ImageFolder(folder).files:
        yield "", SidecarSource(folder)


def _splits_of_files(
    paths: list[str], suffix: str, columns: Columns
) -> Iterator[tuple[str, Source]]:
    """Groups files by split, as in train-00000-of-00002.parquet; other files are split ""."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        first = os.path.basename(path).partition("-")[0]
        known = any(first in each for each in _ALIASES.values())
        groups.setdefault(first if known else "", []).append(path)
    for name, files in groups.items():
        if suffix == ".tar":
            yield name, WebDatasetSource(tuple(files))
        else:
            yield name, ArrowSource(tuple(files), columns)


def _images_beside(folder: str) -> str:
    """Returns the folder of images beside a table, by its usual names, else the table's folder."""
    if not is_remote(folder):
        for name in _IMAGE_FOLDERS:
            if os.path.isdir(join(folder, name)):
                return join(folder, name)
    return folder
