"""Recognises the form of data by their content, and finds their splits.

    source = open_source("dataset_flickr8k.json", split="test", images="Flicker8k_Dataset")
    for name, source in splits_of("my_images").items(): print(name, len(source))

A path may end in "#" and the name of a split: `captions.csv#train`.
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Iterator

from paligemma_lib.data.files import join, read_whole
from paligemma_lib.data.sources.data_path import split_path
from paligemma_lib.data.sources.json_forms import USUAL, Columns, parse_json
from paligemma_lib.data.sources.parquet_source import ArrowSource
from paligemma_lib.data.sources.protocol import Source
from paligemma_lib.data.sources.sidecar import SidecarSource
from paligemma_lib.data.sources.split_names import (
    ALIASES,
    chosen_split,
    split_in_path,
    usual_split,
)
from paligemma_lib.data.sources.table_forms import form_of_json
from paligemma_lib.data.sources.table_source import MAX_TABLE_BYTES, TableSource, folder_of
from paligemma_lib.data.sources.tf_examples import from_tfrecords
from paligemma_lib.data.sources.tfds_source import from_tfds
from paligemma_lib.data.sources.webdataset_source import WebDatasetSource, shards_of
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.regular_files import check_regular

# Names of tables in a folder, and how each is read. The first one that exists is used.
_TABLES = (
    ("captions.txt", "captions.txt"),
    ("captions.csv", "delimited"),
    ("results.csv", "delimited"),  # Flickr30k
    ("metadata.csv", "delimited"),  # imagefolder
    ("metadata.jsonl", "jsonl"),
    ("metadata.parquet", "parquet"),
    ("Flickr8k.token.txt", "tokens"),
    ("captions.tsv", "delimited"),
)
_TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".token", ".token.txt", "captions.txt")
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
    path, named = split_path(path)
    return chosen_split(splits_of(path, images=images, columns=columns), split or named, path)


def splits_of(path: str, *, images: str = "", columns: Columns = USUAL) -> dict[str, Source]:
    """Returns the data's own splits by name, or all records under the name "" if there are none.

    Args and errors are those of `open_source`.
    """
    if not os.path.exists(path) and any(mark in path for mark in "*?{"):
        return {"": _of_files(path, columns)}
    if is_remote(path):
        return dict(_of_file(path, images, columns))
    if os.path.isdir(path):
        return dict(_of_folder(path, images, columns))
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{path} is not there: expected a file or a folder")
    check_regular(path)
    return dict(_of_file(path, images, columns))


def _of_files(pattern: str, columns: Columns) -> Source:
    paths = shards_of(pattern)
    if paths[0].endswith(".tar"):
        return WebDatasetSource(paths)
    if paths[0].endswith((".parquet", ".arrow")):
        return ArrowSource(paths, columns)
    if not _is_tfrecord(paths[0]):
        raise ValueError(
            f"{pattern} stands for {paths[0]}: several files at once are .tar, .parquet, .arrow, "
            ".tfrecord or .array_record. Give a table, or a folder, itself"
        )
    return from_tfrecords(pattern)


def _of_file(path: str, images: str, columns: Columns) -> Iterator[tuple[str, Source]]:
    name = path.rpartition("/")[2].lower()
    if name.endswith((".parquet", ".arrow")) and name != "metadata.parquet":
        yield from _splits_of_column(ArrowSource((path,), columns))
    elif name.endswith(".tar"):
        yield "", WebDatasetSource((path,))
    elif _is_tfrecord(name):
        yield "", from_tfrecords(path)
    else:
        form = _form_of(path, name)
        folder = images or _images_beside(folder_of(path))
        yield from _splits_of_column(TableSource(form, path, folder, columns=columns))


def _form_of(path: str, name: str) -> str:
    if name.endswith(".jsonl"):
        return "jsonl"
    if name.endswith(".parquet"):
        return "parquet"
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


def _is_tfrecord(path: str) -> bool:
    return ".tfrecord" in path or ".array_record" in path


def _splits_of_column(source: TableSource | ArrowSource) -> Iterator[tuple[str, Source]]:
    # Damage does not keep anybody from the names of the splits; opening one finds it.
    for name in dataclasses.replace(source, tolerant=True).splits():
        yield name, dataclasses.replace(source, split=name)


def _of_folder(folder: str, images: str, columns: Columns) -> Iterator[tuple[str, Source]]:
    names = sorted(os.listdir(folder))
    info = _json_in(folder, "dataset_info.json")
    # TFDS lists its splits; Hugging Face writes a file of the same name, with a mapping.
    if isinstance(splits := info.get("splits"), list):
        yield from ((split["name"], from_tfds(folder, split["name"])) for split in splits)
        return
    for table, form in _TABLES:
        if table in names:
            beside = images or _images_beside(folder)
            yield from _splits_of_column(
                TableSource(form, join(folder, table), beside, columns=columns)
            )
            return
    # `save_to_disk` of Hugging Face lists the folders of its splits, which may have any names.
    usual = [name for name in names if usual_split(name) in ALIASES]
    parts = _json_in(folder, "dataset_dict.json").get("splits") or usual
    if parts and all(os.path.isdir(join(folder, name)) for name in parts):
        for name in parts:
            found = splits_of(join(folder, name), images=images, columns=columns)
            # A single split within is this one, such as train/train-00000.tar.
            only = next(iter(found.values())) if len(found) == 1 else None
            yield name, only or chosen_split(found, name, join(folder, name))
        return
    packed = (".arrow", ".parquet", ".tar")
    # Repositories of the Hub have their data in the folder data.
    inner = join(folder, "data")
    if os.path.isdir(inner) and not any(name.endswith(packed) for name in names):
        yield from _of_folder(inner, images, columns)
        return
    for suffix in packed:
        paths = sorted(glob.glob(join(glob.escape(folder), f"**/*{suffix}"), recursive=True))
        # `datasets` leaves results of `map` and `filter` beside its data, as cache-*.arrow.
        paths = [path for path in paths if not os.path.basename(path).startswith(("cache-", "tmp"))]
        if paths:
            yield from _splits_of_files(folder, paths, columns)
            return
    yield from _of_texts(folder)


def _of_texts(folder: str) -> Iterator[tuple[str, Source]]:
    """Opens images with texts beside them. Raises ValueError if a table has the captions."""
    source = SidecarSource(folder)
    tables = [
        file
        for file in source.files
        if file.lower().endswith(_TABLE_SUFFIXES) or _is_tfrecord(file)
    ]
    if tables and not source.has_texts():
        raise ValueError(
            f"{folder}: no image has a text beside it, but there is {', '.join(tables[:3])}. Give "
            "that file as the path, and the folder of its images as `images`"
        )
    if source.files:
        yield "", source


def _json_in(folder: str, name: str) -> dict:
    """Returns the object in a JSON file; {} if there is no such file."""
    path = join(folder, name)
    if not os.path.isfile(path):
        return {}
    try:
        found = parse_json(read_whole(path, MAX_TABLE_BYTES))
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from error
    return found if isinstance(found, dict) else {}


def _splits_of_files(
    folder: str, paths: list[str], columns: Columns
) -> Iterator[tuple[str, Source]]:
    """Groups files by split, as in train-00000-of-00002.parquet; other files are split ""."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(split_in_path(os.path.relpath(path, folder)), []).append(path)
    for name, files in groups.items():
        if files[0].endswith(".tar"):
            yield name, WebDatasetSource(tuple(files))
        elif set(groups) == {""}:
            yield from _splits_of_column(ArrowSource(tuple(files), columns))
        else:
            yield name, ArrowSource(tuple(files), columns)


def _images_beside(folder: str) -> str:
    """Returns the folder of images beside a table, by its usual names, else the table's folder."""
    if not is_remote(folder):
        for name in _IMAGE_FOLDERS:
            if os.path.isdir(join(folder, name)):
                return join(folder, name)
    return folder
