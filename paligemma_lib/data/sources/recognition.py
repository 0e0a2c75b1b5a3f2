"""Recognises the form of data by their content, and finds their splits.

    source = open_source("dataset_flickr8k.json", split="test", images="Flicker8k_Dataset")
    source = open_source("nlphuji/flickr30k@refs/convert/parquet")     # of the Hugging Face Hub
    for name, source in splits_of("my_images").items(): print(name, len(source))

A path may end in "#" and the name of a split: `captions.csv#train`.
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Iterable, Iterator, Mapping

from paligemma_lib.data.files import check_scheme, join, read_whole
from paligemma_lib.data.sources.data_path import split_path
from paligemma_lib.data.sources.file_names import (
    PACKED,
    TABLES,
    images_beside,
    is_packed,
    is_table,
    is_tfrecord,
)
from paligemma_lib.data.sources.hub_dataset import local_parts
from paligemma_lib.data.sources.hub_reference import is_hub
from paligemma_lib.data.sources.json_forms import USUAL, Columns, parse_json
from paligemma_lib.data.sources.parquet_source import ArrowSource
from paligemma_lib.data.sources.protocol import Source
from paligemma_lib.data.sources.sidecar import SidecarSource
from paligemma_lib.data.sources.split_lists import ListedSplit, lists_in
from paligemma_lib.data.sources.split_names import (
    ALIASES,
    chosen_split,
    split_in_path,
    usual_split,
)
from paligemma_lib.data.sources.table_forms import MAX_TABLE_BYTES
from paligemma_lib.data.sources.table_recognition import form_of
from paligemma_lib.data.sources.table_source import TableSource, folder_of
from paligemma_lib.data.sources.tf_examples import features_of, from_tfrecords
from paligemma_lib.data.sources.tfds_source import splits_of_tfds
from paligemma_lib.data.sources.webdataset_source import WebDatasetSource, shards_of
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.regular_files import check_regular


def open_source(
    path: str, *, split: str = "", images: str = "", columns: Columns = USUAL
) -> Source:
    """Opens data of any known form.

    Args:
      path: a file, a folder, or a pattern of files, or a data set of the Hugging Face Hub, see
        `hub_reference`; `PATH#SPLIT` names a split.
      split: one of the data's own splits. If the data have none, "train", "validation" or "test"
        selects a fraction by a hash of the image id, and "" all records.
      images: the folder of images, if it is not beside the table.
      columns: names of columns, keys or features, if they are not the usual ones.

    Raises:
      FileNotFoundError: `path` does not exist.
      PermissionError, ConnectionError, ImportError, OSError: data of the Hub cannot be downloaded,
        see `hub_dataset.local_parts`.
      ValueError: the data have no known form, or have no such split; the message lists the splits.
    """
    path, named = split_path(path)
    split = split or named
    found = splits_of(path, split=split, images=images, columns=columns)
    return chosen_split(found, split, path)


def splits_of(
    path: str, *, split: str = "", images: str = "", columns: Columns = USUAL
) -> dict[str, Source]:
    """Returns the data's own splits by name, or all records under the name "" if there are none.

    Args and errors are those of `open_source`. With a `split`, others may be missing in the result:
    those that need not be downloaded for it.
    """
    if is_hub(path):
        return dict(_of_hub(path, split, images, columns))
    if not os.path.exists(path) and any(mark in path for mark in "*?{"):
        return {"": _of_files(path, columns)}
    if is_remote(path):
        check_scheme(path)
        return dict(_of_file(path, images, columns))
    if os.path.isdir(path):
        return dict(_of_folder(path, images, columns))
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{path} does not exist: expected a file or a folder")
    check_regular(path)
    return dict(_of_file(path, images, columns))


def _of_hub(path: str, split: str, images: str, columns: Columns) -> Iterator[tuple[str, Source]]:
    for name, part in local_parts(path, split).items():
        if len(part.paths) > 1:
            found = {"": _of_packed(tuple(part.paths), columns)}
        else:
            found = splits_of(part.paths[0], images=images or part.images, columns=columns)
        yield from {name: _only(found, name, path)}.items() if name else found.items()


def _of_files(pattern: str, columns: Columns) -> Source:
    paths = shards_of(pattern)
    if is_packed(paths[0]):
        return _of_packed(paths, columns)
    if not is_tfrecord(paths[0]):
        raise ValueError(
            f"{pattern} matches {paths[0]}: a pattern can only match .tar, .parquet, .arrow, "
            ".tfrecord or .array_record files. Give the path of a single table or folder"
        )
    return from_tfrecords(pattern, **features_of(columns))


def _of_packed(paths: tuple[str, ...], columns: Columns) -> Source:
    if not paths[0].endswith(".tar"):
        return ArrowSource(paths, columns)
    _refuse_columns(columns, paths[0])
    return WebDatasetSource(paths)


def _refuse_columns(columns: Columns, path: str) -> None:
    if named := [name for name in columns if name]:
        raise ValueError(f"{path}: {named[0]!r} is named as a column, but the data have no columns")


def _of_file(path: str, images: str, columns: Columns) -> Iterator[tuple[str, Source]]:
    name = path.rpartition("/")[2].lower()
    if name.endswith((".parquet", ".arrow")) and name != "metadata.parquet":
        yield from _splits_of_column(ArrowSource((path,), columns))
    elif name.endswith(".tar"):
        yield "", _of_packed((path,), columns)
    elif is_tfrecord(name):
        yield "", from_tfrecords(path, **features_of(columns))
    else:
        form = form_of(path, columns)
        folder = images or images_beside(folder_of(path))
        yield from _splits_of_column(TableSource(form, path, folder, columns=columns))


def _splits_of_column(source: TableSource | ArrowSource) -> Iterator[tuple[str, Source]]:
    # Damage does not keep anybody from the names of the splits; opening one finds it.
    tolerant = dataclasses.replace(source, tolerant=True)
    for name in tolerant.splits():
        if isinstance(tolerant, TableSource):
            yield name, tolerant.derived(split=name, tolerant=False)
        else:
            yield name, dataclasses.replace(source, split=name)


def _of_folder(folder: str, images: str, columns: Columns) -> Iterator[tuple[str, Source]]:
    names = sorted(os.listdir(folder))
    info = _json_in(folder, "dataset_info.json")
    # TFDS lists its splits; Hugging Face writes a file of the same name, with a mapping.
    if isinstance(info.get("splits"), list):
        yield from splits_of_tfds(folder, columns=columns).items()
        return
    for table, form in TABLES:
        if table in names:
            form = "delimited" if form == "captions.txt" and any(columns) else form
            beside = images or images_beside(folder)
            source = TableSource(form, join(folder, table), beside, columns=columns)
            yield from _with_lists(_splits_of_column(source), lists_in(folder, names))
            return
    # `save_to_disk` of Hugging Face lists the folders of its splits, which may have any names.
    usual = [name for name in names if usual_split(name) in ALIASES]
    parts = _json_in(folder, "dataset_dict.json").get("splits") or usual
    if parts and all(os.path.isdir(join(folder, name)) for name in parts):
        for name in parts:
            found = splits_of(join(folder, name), images=images, columns=columns)
            yield name, _only(found, name, join(folder, name))
        return
    # Repositories of the Hub have their data in the folder data.
    inner = join(folder, "data")
    if os.path.isdir(inner) and not any(name.endswith(PACKED) for name in names):
        yield from _of_folder(inner, images, columns)
        return
    for suffix in PACKED:
        paths = sorted(glob.glob(join(glob.escape(folder), f"**/*{suffix}"), recursive=True))
        # `datasets` leaves results of `map` and `filter` beside its data, as cache-*.arrow.
        paths = [path for path in paths if not os.path.basename(path).startswith(("cache-", "tmp"))]
        if paths:
            yield from _splits_of_files(folder, paths, columns)
            return
    yield from _with_lists(_of_texts(folder, columns), lists_in(folder, names))


def _with_lists(
    splits: Iterable[tuple[str, Source]], lists: Mapping[str, str]
) -> Iterator[tuple[str, Source]]:
    """Divides a source without splits by the lists of images that are beside it."""
    for name, source in splits:
        if lists and not name:
            yield from ((split, ListedSplit(source, path)) for split, path in lists.items())
        else:
            yield name, source


def _only(found: Mapping[str, Source], name: str, path: str) -> Source:
    """Returns the split `name` of data that should be this split alone."""
    # A single split within is this one, such as train/train-00000.tar.
    return next(iter(found.values())) if len(found) == 1 else chosen_split(found, name, path)


def _of_texts(folder: str, columns: Columns) -> Iterator[tuple[str, Source]]:
    """Opens images with texts beside them. Raises ValueError if a table has the captions."""
    _refuse_columns(columns, folder)
    source = SidecarSource(folder)
    tables = [file for file in source.files if is_table(file) or is_tfrecord(file)]
    if tables and not source.has_texts():
        raise ValueError(
            f"{folder}: no image has a text file beside it, but there is {', '.join(tables[:3])}. "
            "Give that file as the path, and the folder of its images as `images`"
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
            yield name, _of_packed(tuple(files), columns)
        elif set(groups) == {""}:
            yield from _splits_of_column(ArrowSource(tuple(files), columns))
        else:
            yield name, ArrowSource(tuple(files), columns)
