"""Knows which columns of Parquet and Arrow files hold what, and reads their cells.

names = names_of({"train.parquet": file.schema}, Columns())
names.image, names.captions, names.image_id, names.prefix, names.split
image_in({"bytes": data, "path": "a.jpg"}, "row 1"), texts_in(["a dog"], "row 1")
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.data.sources.json_forms import CAPTION_KEYS, PREFIX_KEYS, Columns
from paligemma_lib.data.text import cleaned

IMAGE_COLUMNS = ("image", "img", "jpg", "png")
_ID_COLUMNS = ("image_id", "filename", "file_name", "img_id")


class Names(NamedTuple):
    """Names of the columns; "" for a column that is not there."""

    image: str
    captions: tuple[str, ...]
    image_id: str
    prefix: str
    split: str


def names_of(schemas: Mapping[str, pa.Schema], columns: Columns) -> Names:
    """Returns the names of the columns, which all files have.

    Args:
      schemas: schema of each file, by its path; at least one.
      columns: names of the columns of image and captions, if they are not the usual ones.

    Raises:
      ValueError: no column is known to hold the image or the captions, or a file lacks one.
    """
    path, schema = next(iter(schemas.items()))
    names = schema.names
    for wanted in filter(None, columns):
        if wanted not in names:
            raise ValueError(f"{path} has no column {wanted}: {', '.join(names)[:200]}")
    image = columns.image or _first(names, IMAGE_COLUMNS)
    captions = [columns.caption or _first(names, CAPTION_KEYS)]
    if not captions[0]:
        captions = [name for name in names if re.fullmatch(r"caption_\d+", name)]
    if not image or not captions:
        raise ValueError(
            f"{path}: no column is known to hold "
            f"{'the image' if not image else 'captions'}: {', '.join(names)[:200]}"
        )
    others = [_first(names, usual) for usual in (_ID_COLUMNS, PREFIX_KEYS, ("split",))]
    for each, its in schemas.items():
        if lacks := sorted({image, *captions, *filter(None, others)} - {*its.names}):
            raise ValueError(
                f"{each} has no column {', '.join(lacks)}, as {path} has; give files with the same "
                "columns"
            )
    return Names(image, tuple(captions), *others)


def image_in(value: Any, where: str) -> bytes:
    """Returns the image in a cell. Raises ValueError, with `where`, if there is none."""
    encoded = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(encoded, bytes):
        raise ValueError(f"{where}: there are no bytes of an image, but {str(value)[:80]}")
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
        raise ValueError(f"{where}: {str(value)[:80]} is no caption")
    return [cleaned(text) for text in values if text.strip()]


def _first(names: Sequence[str], usual: Sequence[str]) -> str:
    return next((name for name in usual if name in names), "")
