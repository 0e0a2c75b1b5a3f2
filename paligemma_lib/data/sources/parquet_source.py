"""Reads Parquet files of the Hugging Face Hub, and Arrow files of data sets saved to disk.

    source = ArrowSource(("data/train-00000-of-00002.parquet", ...))
    source = ArrowSource(("saved/data-00000-of-00001.arrow",))

The image column holds structs of `bytes` and `path`, or bytes. The caption column holds texts or
lists of texts. Rows with the same image and prompt are one record. A column such as `image_id` says
which rows have the same image. Without one, these are rows with the same path and bytes in their
image struct. A row that has neither id nor path is a record of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.data.sources.arrow_files import (
    ArrowFile,
    ParquetFile,
    cached_block,
    open_arrow,
)
from paligemma_lib.data.sources.json_forms import CAPTION_KEYS, PREFIX_KEYS, USUAL, Columns
from paligemma_lib.data.sources.protocol import Record, unique_ids
from paligemma_lib.data.text import cleaned

IMAGE_COLUMNS = ("image", "img", "jpg", "png")
_ID_COLUMNS = ("image_id", "filename", "file_name", "img_id")


class _Names(NamedTuple):
    """Names of the columns; "" for a column that is not there."""

    image: str
    captions: tuple[str, ...]
    image_id: str
    prefix: str
    split: str


class _Place(NamedTuple):
    """Place of a row: index of the file, of the block in the file, of the row in the block."""

    file: int
    block: int
    row: int


class _Group(NamedTuple):
    """Rows of a record; `image` is the name of its image."""

    image_id: str
    image: str
    places: list[_Place]


@dataclasses.dataclass(frozen=True)
class ArrowSource:
    """Records of local Parquet or Arrow files, numbered through all files in their order.

    Attributes:
      paths: paths of the files.
      columns: names of the columns of image and captions, if they are not the usual ones.
      split: name of the split to read, from the column `split`; "" reads all rows.
    """

    paths: tuple[str, ...]
    columns: Columns = USUAL
    split: str = ""

    @functools.cached_property
    def _files(self) -> list[ParquetFile | ArrowFile]:
        return [open_arrow(path) for path in self.paths]

    @functools.cached_property
    def _names(self) -> _Names:
        """Names of the columns.

        Raises:
          ValueError: no column is known to hold the image or the captions.
        """
        names = self._files[0].schema.names
        for wanted in filter(None, self.columns):
            if wanted not in names:
                raise ValueError(
                    f"{self.paths[0]} has no column {wanted}: {', '.join(names)[:200]}"
                )
        image = self.columns.image or _first(names, IMAGE_COLUMNS)
        captions = [self.columns.caption or _first(names, CAPTION_KEYS)]
        if not captions[0]:
            captions = [name for name in names if re.fullmatch(r"caption_\d+", name)]
        if not image or not captions:
            raise ValueError(
                f"{self.paths[0]}: no column is known to hold "
                f"{'the image' if not image else 'captions'}: {', '.join(names)[:200]}"
            )
        others = [_first(names, usual) for usual in (_ID_COLUMNS, PREFIX_KEYS, ("split",))]
        found = _Names(image, tuple(captions), *others)
        for path, file in zip(self.paths, self._files, strict=True):
            if lacks := sorted({image, *captions, *filter(None, others)} - {*file.schema.names}):
                raise ValueError(
                    f"{path} has no column {', '.join(lacks)}, as {self.paths[0]} has; give files "
                    "with the same columns"
                )
        return found

    @functools.cached_property
    def _groups(self) -> list[_Group]:
        """Records in the order of their first rows. Rows of one image need not be neighbours."""
        rows = list(self._rows())
        digests = {} if self._names.image_id else self._digests(rows)
        groups: dict[tuple, list[_Place]] = {}
        names: dict[tuple, str] = {}
        for place, name, prefix in rows:
            # A row whose image has no name is a record of its own.
            key = (place,) if name is None else (name, digests.get(place), prefix)
            groups.setdefault(key, []).append(place)
            names.setdefault(key, f"row {len(names)}" if name is None else name)
        ids = unique_ids(list(names.values()))
        return [_Group(*each) for each in zip(ids, names.values(), groups.values(), strict=True)]

    def _rows(self) -> Iterator[tuple[_Place, str | None, str | None]]:
        """Yields place, image's name and prompt of each row, without reading images."""
        image, _, image_id, prefix, split = self._names
        has_path = pa.types.is_struct(kind := self._files[0].schema.field(image).type) and (
            kind.get_field_index("path") >= 0
        )
        for number, file in enumerate(self._files):
            for block in range(file.blocks):
                nothing: list[Any] = [None] * file.rows(block)
                names = prefixes = splits = nothing
                if image_id:
                    names = file.read(block, [image_id]).column(0).to_pylist()
                elif has_path:
                    names = file.field(block, image, "path")
                if prefix:
                    prefixes = file.read(block, [prefix]).column(0).to_pylist()
                if split and self.split:
                    splits = file.read(block, [split]).column(0).to_pylist()
                columns = zip(names, prefixes, splits, strict=True)
                for row, (name, prompt, part) in enumerate(columns):
                    place = _Place(number, block, row)
                    if not isinstance(prompt, str | None):
                        raise ValueError(f"{self._where(place)}: {str(prompt)[:80]} is no prompt")
                    if self.split in ("", part):
                        yield place, None if name in (None, "") else str(name), prompt or None

    def _digests(self, rows: Sequence[tuple[_Place, str | None, Any]]) -> dict[_Place, bytes]:
        """Returns hashes of those images whose path occurs more than once.

        The path is often a file name without its folder. Rows that share it are the same image only
        if the bytes are the same, too. Where all paths differ, no image is read here.
        """
        counts = Counter(name for _, name, _ in rows)
        found = {}
        for place, name, _ in rows:
            if name is not None and counts[name] > 1:
                table = cached_block(self._files[place.file], place.block, (self._names.image,))
                (value,) = table.column(0).slice(place.row, 1).to_pylist()
                found[place] = hashlib.sha256((value or {}).get("bytes") or b"").digest()
        return found

    def __len__(self) -> int:
        return len(self._groups)

    def where(self, number: int) -> str:
        return self._where(self._groups[number].places[0])

    def _where(self, place: _Place) -> str:
        return f"{self.paths[place.file]}, row {place.row} of row group {place.block}"

    def splits(self) -> list[str]:
        """Returns the splits in the column `split`, in the order of the rows; [""] without it."""
        if not (split := self._names.split):
            return [""]
        parts = [
            part
            for file in self._files
            for block in range(file.blocks)
            for part in file.read(block, [split]).column(0).unique().to_pylist()
        ]
        if not all(isinstance(part, str) and part for part in parts):
            raise ValueError(f"{self.paths[0]}: the column {split} has rows without a split")
        return [*dict.fromkeys(parts)] or [""]

    def images_of_records(self) -> list[str]:
        """Returns the name of each record's image without reading it; prompts may share one."""
        return [group.image for group in self._groups]

    def fingerprint(self) -> str:
        sizes = [os.path.getsize(path) for path in self.paths]
        lengths = np.array([len(group.places) for group in self._groups])
        names = repr((self._names, self.split)).encode()
        return fingerprint(*self.paths, *sizes, names, lengths)

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return [self._read(self._groups[number], self.where(number)) for number in numbers]

    def _read(self, group: _Group, where: str) -> Record:
        image, captions, _, prefix, _ = self._names
        rows: list[dict[str, Any]] = []
        # All rows of a record have the same image, so it is read from the first row only.
        for file, block, row in group.places:
            wanted = (*((image,) if not rows else ()), *captions, *((prefix,) if prefix else ()))
            table = cached_block(self._files[file], block, tuple(dict.fromkeys(wanted)))
            # Sliced first, so that only this row is converted to Python objects.
            rows.append(table.slice(row, 1).to_pylist()[0])
        said = [text for each in rows for name in captions for text in _texts(each[name], where)]
        encoded = _image(rows[0][image], where)
        return Record(encoded, tuple(said), group.image_id, rows[0].get(prefix) or None)


def _first(names: Sequence[str], usual: Sequence[str]) -> str:
    return next((name for name in usual if name in names), "")


def _image(value: Any, where: str) -> bytes:
    encoded = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(encoded, bytes):
        raise ValueError(f"{where}: there are no bytes of an image, but {str(value)[:80]}")
    if len(encoded) > MAX_IMAGE_BYTES:
        raise ValueError(f"{where}: an image of {len(encoded):,} bytes is too large")
    return encoded


def _texts(value: Any, where: str) -> list[str]:
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
