"""Places of rows in Parquet and Arrow files, and which of them are one record.

Place(file=0, block=2, row=7)
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Place of a row: index of the file, of the block in the file, of the row in the block."""

    file: int
    block: int
    row: int


class Group(NamedTuple):
    """Rows of a record; `image` is the name of its image."""

    image_id: str
    image: str
    places: list[Place]


def digest_of(value: Any) -> bytes:
    """Returns a hash of the image in a cell, a struct of bytes and path."""
    data = value.get("bytes") if isinstance(value, dict) else None
    return hashlib.sha256(data if isinstance(data, bytes) else b"").digest()
