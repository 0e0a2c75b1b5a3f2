"""Opens single files, and files that are one source, by their names and content.

for split, source in of_file("captions.csv", How()): ...
of_packed(("data/train-0.parquet", "data/train-1.parquet"), How())
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import NamedTuple

from paligemma_lib.data.outside import check_link
from paligemma_lib.data.sources.file_names import images_beside, is_packed, is_tfrecord
from paligemma_lib.data.sources.json_forms import USUAL, Columns
from paligemma_lib.data.sources.parquet_source import ArrowSource
from paligemma_lib.data.sources.protocol import Source
from paligemma_lib.data.sources.split_names import split_in_path
from paligemma_lib.data.sources.table_recognition import form_of
from paligemma_lib.data.sources.table_source import TableSource, folder_of
from paligemma_lib.data.sources.tar_members import shards_of
from paligemma_lib.data.sources.tf_examples import features_of, from_tfrecords
from paligemma_lib.data.sources.webdataset_source import WebDatasetSource


class How(NamedTuple):
    """How data are to be opened, as for `open_source`.

    Attributes:
      images, columns: the folder of images, and the names of columns.
      within: folders that links in the data must not lead out of, see `outside`.
    """

    images: str = ""
    columns: Columns = USUAL
    within: tuple[str, ...] = ()


def of_file(path: str, how: How) -> Iterator[tuple[str, Source]]:
    """Yields the splits of one file; "" stands for all records of one without splits."""
    name = path.rpartition("/")[2].lower()
    if name.endswith((".parquet", ".arrow")) and name != "metadata.parquet":
        yield from splits_of_column(ArrowSource((path,), how.columns))
    elif name.endswith(".tar"):
        yield "", of_packed((path,), how)
    elif is_tfrecord(name):
        yield "", from_tfrecords(path, **features_of(how.columns))
    else:
        yield from splits_of_column(table(form_of(path, how.columns), path, how))


def table(form: str, path: str, how: How) -> TableSource:
    """Returns a table, with its images in the folder that is given, or beside it.

    Raises:
      ValueError: that folder beside it is a link that leads out, see `outside`.
    """
    images = how.images or images_beside(folder_of(path))
    if not how.images and how.within:
        check_link(images, how.within)
    return TableSource(form, path, images, columns=how.columns, within=how.within)


def of_pattern(pattern: str, how: How) -> Source:
    """Opens the files of a pattern. Raises ValueError if they are of no form that has several."""
    paths = shards_of(pattern)
    if is_packed(paths[0]):
        return of_packed(paths, how)
    if not is_tfrecord(paths[0]):
        raise ValueError(
            f"{pattern} matches {paths[0]}: a pattern can only match .tar, .parquet, .arrow, "
            ".tfrecord or .array_record files. Give the path of a single table or folder"
        )
    return from_tfrecords(pattern, **features_of(how.columns))


def of_packed(paths: tuple[str, ...], how: How) -> Source:
    """Opens files that hold images and captions together, as one source."""
    if not paths[0].endswith(".tar"):
        return ArrowSource(paths, how.columns)
    refuse_columns(how.columns, paths[0])
    return WebDatasetSource(paths)


def refuse_columns(columns: Columns, path: str) -> None:
    """Raises ValueError if a column is named, for data that have none."""
    if named := [name for name in columns if name]:
        raise ValueError(f"{path}: {named[0]!r} is named as a column, but the data have no columns")


def splits_of_column(source: TableSource | ArrowSource) -> Iterator[tuple[str, Source]]:
    """Yields the splits that a column of a table names; "" if it has no such column."""
    # Damage does not keep anybody from the names of the splits; opening one finds it.
    tolerant = dataclasses.replace(source, tolerant=True)
    for name in tolerant.splits():
        if isinstance(tolerant, TableSource):
            yield name, tolerant.derived(split=name, tolerant=False)
        else:
            yield name, dataclasses.replace(source, split=name)


def splits_of_files(folder: str, paths: list[str], how: How) -> Iterator[tuple[str, Source]]:
    """Groups files by split, as in train-00000-of-00002.parquet; other files are split ""."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(split_in_path(os.path.relpath(path, folder)), []).append(path)
    for name, files in groups.items():
        if files[0].endswith(".tar"):
            yield name, of_packed(tuple(files), how)
        elif set(groups) == {""}:
            yield from splits_of_column(ArrowSource(tuple(files), how.columns))
        else:
            yield name, ArrowSource(tuple(files), how.columns)
