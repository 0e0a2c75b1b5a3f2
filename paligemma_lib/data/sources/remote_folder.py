"""Opens folders on remote storage by the names of their files: tables, packed files, or texts.

for split, source in of_remote_folder("gs://bucket/photos", How()): ...

A folder is listed once, in few requests. Forms that need more than one look, such as a folder for
each split, are recognised on a disk only.
"""

from __future__ import annotations

from collections.abc import Iterator

from paligemma_lib.data.files import join
from paligemma_lib.data.sources.file_names import PACKED, TABLES, is_table, is_tfrecord
from paligemma_lib.data.sources.file_recognition import (
    How,
    refuse_columns,
    splits_of_column,
    splits_of_files,
    table,
)
from paligemma_lib.data.sources.protocol import Source
from paligemma_lib.data.sources.sidecar import SidecarSource
from paligemma_lib.data.sources.tfds_source import splits_of_tfds


def of_remote_folder(folder: str, how: How) -> Iterator[tuple[str, Source]]:
    """Yields the splits of a remote folder; "" stands for all records of one without splits.

    Raises:
      FileNotFoundError: there is nothing in it.
      ValueError: its files have no known form.
    """
    source = SidecarSource(folder, how.within)
    if {"dataset_info.json", "features.json"} <= {*source.files}:
        yield from splits_of_tfds(folder, columns=how.columns).items()
        return
    for name, form in TABLES:
        if name in source.files:
            form = "delimited" if form == "captions.txt" and any(how.columns) else form
            yield from splits_of_column(table(form, join(folder, name), how))
            return
    for suffix in PACKED:
        if paths := [join(folder, file) for file in source.files if file.endswith(suffix)]:
            yield from splits_of_files(folder, paths, how)
            return
    others = [file for file in source.files if is_table(file) or is_tfrecord(file)]
    if not len(source) or (others and not source.has_texts()):
        told = ", ".join((others or source.files)[:3])
        raise ValueError(
            f"{folder} has no data in a known format among its files: {told}. Give one of them "
            "as the path"
        )
    refuse_columns(how.columns, folder)
    yield "", source
