"""Recognises the form of data by their content, and finds their splits.

    source = open_source("dataset_flickr8k.json", split="test", images="Flicker8k_Dataset")
    source = open_source("nlphuji/flickr30k@refs/convert/parquet")     # of the Hugging Face Hub
    for name, source in splits_of("my_images").items(): print(name, len(source))

A path may end in "#" and the name of a split: `captions.csv#train`.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Iterator, Mapping

from paligemma_lib.data.files import check_scheme, is_folder, join
from paligemma_lib.data.outside import ANYWHERE, check_link, check_way
from paligemma_lib.data.sources.coco_folder import coco_tables
from paligemma_lib.data.sources.data_path import check_path, split_path
from paligemma_lib.data.sources.file_names import (
    PACKED,
    TABLES,
    is_table,
    is_tfrecord,
)
from paligemma_lib.data.sources.file_recognition import (
    How,
    of_file,
    of_packed,
    of_pattern,
    refuse_columns,
    splits_of_column,
    splits_of_files,
    table,
)
from paligemma_lib.data.sources.folder_contents import json_in, split_folders, unpacked
from paligemma_lib.data.sources.hub_dataset import local_parts
from paligemma_lib.data.sources.hub_reference import is_hub
from paligemma_lib.data.sources.json_forms import USUAL, Columns
from paligemma_lib.data.sources.protocol import Source
from paligemma_lib.data.sources.remote_folder import of_remote_folder
from paligemma_lib.data.sources.sidecar import SidecarSource
from paligemma_lib.data.sources.split_lists import ListedSplit, lists_in
from paligemma_lib.data.sources.split_names import chosen_split
from paligemma_lib.data.sources.table_source import folder_of
from paligemma_lib.data.sources.tfds_source import splits_of_tfds
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.regular_files import check_regular
from paligemma_lib.runtime.visible_text import visible

_log = logging.getLogger(__name__)


def open_source(
    path: str,
    *,
    split: str = "",
    images: str = "",
    columns: Columns = USUAL,
    allow_outside: bool = False,
) -> Source:
    """Opens data of any known form.

    Args:
      path: a file, a folder, or a pattern of files, or a data set of the Hugging Face Hub, see
        `hub_reference`; `PATH#SPLIT` names a split.
      split: one of the data's own splits. If the data have none, "train", "validation" or "test"
        selects a fraction by a hash of the image id, and "" all records.
      images: the folder of images, if it is not beside the table.
      columns: names of columns, keys or features, if they are not the usual ones.
      allow_outside: whether links in a folder, and names in a table, may lead out of the folder.
        What the arguments name is followed in any case.

    Raises:
      FileNotFoundError: `path` does not exist.
      PermissionError, ConnectionError, ImportError, OSError: data of the Hub cannot be downloaded,
        see `hub_dataset.local_parts`.
      ValueError: the data have no known form, or have no such split; the message lists the splits.
    """
    path, named = split_path(path)
    split = split or named
    found = splits_of(
        path, split=split, images=images, columns=columns, allow_outside=allow_outside
    )
    return chosen_split(found, split, path)


def splits_of(
    path: str,
    *,
    split: str = "",
    images: str = "",
    columns: Columns = USUAL,
    allow_outside: bool = False,
) -> dict[str, Source]:
    """Returns the data's own splits by name, or all records under the name "" if there are none.

    Args and errors are those of `open_source`. With a `split`, others may be missing in the result:
    those that need not be downloaded for it.
    """
    check_path(path)
    if is_hub(path):
        return dict(_of_hub(path, split, How(images, columns)))
    home = path if os.path.isdir(path) else folder_of(path)
    within = ANYWHERE if allow_outside else (home, *filter(None, [images]))
    try:
        return _splits(path, How(images, columns, within))
    except RecursionError as error:
        raise ValueError(f"{path}: its folders are nested too deeply") from error


def _splits(path: str, how: How) -> dict[str, Source]:
    if not os.path.exists(path) and any(mark in path for mark in "*?{"):
        return {"": of_pattern(path, how)}
    if is_remote(path):
        check_scheme(path)
        return dict(of_remote_folder(path, how) if is_folder(path) else of_file(path, how))
    if os.path.isdir(path):
        return dict(_of_folder(path, how))
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{path} does not exist: expected a file or a folder")
    check_regular(path)
    return dict(of_file(path, how))


def _of_hub(path: str, split: str, how: How) -> Iterator[tuple[str, Source]]:
    for name, part in local_parts(path, split).items():
        # The links from a folder into the cache are our own.
        how = how._replace(images=how.images or part.images, within=ANYWHERE)
        if len(part.paths) > 1:
            found = {"": of_packed(tuple(part.paths), how)}
        else:
            found = _splits(part.paths[0], how)
        yield from {name: _only(found, name, path)}.items() if name else found.items()


def _of_folder(folder: str, how: How) -> Iterator[tuple[str, Source]]:
    names = sorted(os.listdir(folder))
    info = json_in(folder, "dataset_info.json", how.within)
    # TFDS lists its splits; Hugging Face writes a file of the same name, with a mapping.
    if isinstance(info.get("splits"), list):
        for name in names:
            check_link(join(folder, name), how.within)
        yield from splits_of_tfds(folder, columns=how.columns).items()
        return
    for name, form in TABLES:
        if name in names:
            form = "delimited" if form == "captions.txt" and any(how.columns) else form
            path = join(folder, name)
            check_link(path, how.within)
            yield from _with_lists(
                splits_of_column(table(form, path, how)), lists_in(folder, names), how
            )
            return
    if parts := split_folders(folder, names, how.within):
        for name in parts:
            found = _splits(join(folder, name), how)
            yield name, _only(found, name, join(folder, name))
        return
    # Repositories of the Hub have their data in the folder data.
    inner = join(folder, "data")
    if os.path.isdir(inner) and not any(name.endswith(PACKED) for name in names):
        check_link(inner, how.within)
        yield from _of_folder(inner, how)
        return
    for suffix in PACKED:
        paths = sorted(glob.glob(join(glob.escape(folder), f"**/*{suffix}"), recursive=True))
        # `datasets` leaves results of `map` and `filter` beside its data, as cache-*.arrow.
        paths = [path for path in paths if not os.path.basename(path).startswith(("cache-", "tmp"))]
        if paths:
            for path in paths:
                check_way(folder, path, how.within)
            yield from splits_of_files(folder, paths, how)
            return
    if coco := coco_tables(folder, how.images):
        for name, (path, images) in coco.items():
            check_way(folder, path, how.within)
            if not how.images:
                check_way(folder, images, how.within)
            yield name, table("coco", path, how._replace(images=images))
        return
    yield from _with_lists(_of_texts(folder, how), lists_in(folder, names), how)


def _with_lists(
    splits: Iterable[tuple[str, Source]], lists: Mapping[str, str], how: How
) -> Iterator[tuple[str, Source]]:
    """Divides a source without splits by the lists of images that are beside it."""
    for name, source in splits:
        if lists and not name:
            for path in lists.values():
                check_link(path, how.within)
            yield from ((split, ListedSplit(source, path)) for split, path in lists.items())
        else:
            yield name, source


def _only(found: Mapping[str, Source], name: str, path: str) -> Source:
    """Returns the split `name` of data that should be this split alone."""
    # A single split within is this one, such as train/train-00000.tar.
    return next(iter(found.values())) if len(found) == 1 else chosen_split(found, name, path)


def _of_texts(folder: str, how: How) -> Iterator[tuple[str, Source]]:
    """Opens images with texts beside them. Raises ValueError if a table has the captions."""
    source = SidecarSource(folder, how.within)
    tables = [file for file in source.files if is_table(file) or is_tfrecord(file)]
    if tables and not source.has_texts():
        if inner := unpacked(folder, source.files):
            _log.info("%s: the data are in its folder %s", visible(folder), visible(inner))
            yield from _of_folder(join(folder, inner), how)
            return
        raise ValueError(
            f"{folder}: no image has a text file beside it, but there is {', '.join(tables[:3])}. "
            "Give that file as the path, and the folder of its images as `images`"
        )
    refuse_columns(how.columns, folder)
    if source.files:
        yield "", source
