"""Finds the columns of image and captions in Parquet and Arrow files, and reads their cells.

names = column_names({"train-00000-of-00002.parquet": schema, ...}, Columns(caption="title"))
names.image, names.captions, names.image_id             # "image", ("title",), ""
image_in({"bytes": data, "path": "a.jpg"}, "row 1"), texts_in(["a dog"], "row 1")
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.data.sources.json_forms import CAPTION_KEYS, PREFIX_KEYS, Columns
from paligemma_lib.data.sources.json_values import shown
from paligemma_lib.data.text import cleaned

IMAGE_COLUMNS = ("image", "img", "jpg", "png")
_ID_COLUMNS = ("image_id", "filename", "file_name", "img_id")


class ColumnNames(NamedTuple):
    """Names of the columns; "" for a column that is not there.

    There are several columns of captions where they are called caption_0, caption_1, and so on.
    """

    image: str
    captions: tuple[str, ...]
    image_id: str
    prefix: str
    split: str


def column_names(schemas: Mapping[str, pa.Schema], columns: Columns) -> ColumnNames:
    """Returns the names of the columns to read.

    Args:
      schemas: names and types of the columns of each file, by path.
      columns: names of columns that are not the usual ones.

    Raises:
      ValueError: no image column or no caption column was found, or a file lacks a column.
    """
    path, schema = next(iter(schemas.items()))
    names = schema.names
    for wanted in filter(None, columns):
        if wanted not in names:
            raise ValueError(f"{path} has no column {wanted}, only {', '.join(names)[:200]}")
    image = columns.image or _first(names, IMAGE_COLUMNS)
    captions = [columns.caption or _first(names, CAPTION_KEYS)]
    if not captions[0]:
        captions = [name for name in names if re.fullmatch(r"caption_\d+", name)]
    if not image or not captions:
        what = "image" if not image else "caption"
        raise ValueError(
            f"{path}: no {what} column found among {', '.join(names)[:200]}. Name it as "
            f"{what}_column"
        )
    found = ColumnNames(
        image,
        tuple(captions),
        columns.image_id or _first(names, _ID_COLUMNS),
        columns.prompt or _first(names, PREFIX_KEYS),
        columns.split or _first(names, ("split",)),
    )
    used = {found.image, *found.captions, *filter(None, found[2:])}
    for other, schema in schemas.items():
        if lacks := sorted(used - {*schema.names}):
            raise ValueError(
                f"{other} has no column {', '.join(lacks)}, but {path} has; use files with the "
                "same columns"
            )
    return found


def image_in(value: Any, where: str) -> bytes:
    """Returns the image in a cell. Raises ValueError, with `where`, if there is none."""
    encoded = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(encoded, bytes):
        raise ValueError(f"{where}: expected the bytes of an image, got {shown(value)}")
    if len(encoded) > MAX_IMAGE_BYTES:
        raise ValueError(f"{where}: an image of {len(encoded):,} bytes is too large")
    return encoded


def texts_in(value: Any, where: str) -> list[str]:
    """Returns the captions in a cell. Raises ValueError, with `where`, if they are no texts."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    values = [
        next((each[key] for key in ("raw", "text", "answer") if each.get(key)), None)
        if isinstance(each, dict)
        else each
        for each in values
    ]
    if not all(isinstance(text, str) for text in values):
        raise ValueError(f"{where}: {shown(value)} is not a caption")
    return [cleaned(text) for text in values if text.strip()]


def _first(names: Sequence[str], usual: Sequence[str]) -> str:
    return next((name for name in usual if name in names), "")
