"""Reads Parquet files of the Hugging Face Hub, and Arrow files of data sets saved to disk.

    source = ArrowSource(("data/train-00000-of-00002.parquet", ...))
    source = ArrowSource(("saved/data-00000-of-00001.arrow",))

The image column holds structs of `bytes` and `path`, or bytes. The caption column holds texts or
lists of texts. Rows with the same id and prompt are one record, if there is a column of ids, such
as `image_id`. Without one, each row is a record, and its id is the path in its image struct, or
the row number if there is no path.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from paligemma_lib.data.files import MAX_IMAGE_BYTES
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.sources.json_forms import CAPTION_KEYS, PREFIX_KEYS, USUAL, Columns
from paligemma_lib.data.sources.protocol import Record
from paligemma_lib.data.text import cleaned

IMAGE_COLUMNS = ("image", "img", "jpg", "png")
_ID_COLUMNS = ("image_id", "filename", "file_name", "img_id", "id")


@dataclasses.dataclass(frozen=True)
class ArrowSource:
    """Records of local Parquet or Arrow files, numbered through all files in their order.

    Attributes:
      paths: paths of the files.
      columns: names of the columns of image and captions, if they are not the usual ones.
    """

    paths: tuple[str, ...]
    columns: Columns = USUAL

    @functools.cached_property
    def _files(self) -> list[Any]:
        return [_open(path) for path in self.paths]

    @functools.cached_property
    def _names(self) -> tuple[str, list[str], str, str]:
        """Names of the columns of image, captions, id ("" if none) and prompt ("" if none).

        Raises:
          ValueError: no column is known to hold the image or the captions.
        """
        names = self._files[0].schema.names
        image = _chosen(names, self.columns.image, IMAGE_COLUMNS)
        captions = [name for name in names if name.startswith("caption_")]  # caption_0 to caption_4
        usual = self.columns.caption or next((n for n in CAPTION_KEYS if n in names), "")
        if not image or not (usual in names or captions):
            raise ValueError(
                f"{self.paths[0]}: no column is known to hold "
                f"{'the image' if not image else 'captions'}: {', '.join(names)[:200]}"
            )
        captions = [usual] if usual in names else captions
        return (
            image, captions, _chosen(names, "", _ID_COLUMNS), _chosen(names, "", PREFIX_KEYS),
        )  # fmt: skip

    @functools.cached_property
    def _groups(self) -> list[list[tuple[int, int, int]]]:
        """Rows of each record, as index of the file, block in the file, row in the block."""
        _, _, image_id, prefix = self._names
        # Rows of one image need not be neighbours. Only the columns of id and prompt are read here.
        groups: dict[Any, list[tuple[int, int, int]]] = {}
        for number, file in enumerate(self._files):
            for block in range(file.blocks):
                wanted = [name for name in (image_id, prefix) if name]
                rows = file.read(block, wanted).to_pylist() if wanted else [{}] * file.rows(block)
                for row, values in enumerate(rows):
                    place = number, block, row
                    name = values.get(image_id)  # a row with a null id is a record of its own
                    key = place if name is None else (name, values.get(prefix))
                    groups.setdefault(key, []).append(place)
        return list(groups.values())

    def __len__(self) -> int:
        return len(self._groups)

    def where(self, number: int) -> str:
        file, block, row = self._groups[number][0]
        return f"{self.paths[file]}, row {row} of row group {block}"

    def fingerprint(self) -> str:
        sizes = [os.path.getsize(path) for path in self.paths]
        lengths = np.array([len(group) for group in self._groups])
        return fingerprint(*self.paths, *sizes, repr(self._names).encode(), lengths)

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return [self._read(number) for number in numbers]

    def _read(self, number: int) -> Record:
        image, captions, image_id, prefix = self._names
        rows: list[dict[str, Any]] = []
        # All rows of a record have the same image, so it is read from the first row only.
        for file, block, row in self._groups[number]:
            wanted = [*dict.fromkeys([*([image] if not rows else []), *captions, image_id, prefix])]
            table = _block(self._files[file], block, tuple(name for name in wanted if name))
            # Sliced first, so that only this row is converted to Python objects.
            rows.append(table.slice(row, 1).to_pylist()[0])
        where = self.where(number)
        encoded, path = _image(rows[0][image], where)
        said = [text for each in rows for name in captions for text in _texts(each[name], where)]
        name = rows[0].get(image_id) if image_id else path
        return Record(
            encoded, tuple(said), str(name or f"row {number}"), rows[0].get(prefix) or None
        )


class _ParquetFile:
    def __init__(self, path: str) -> None:
        self._file = pq.ParquetFile(path)
        self.schema, self.blocks = self._file.schema_arrow, self._file.num_row_groups

    def rows(self, block: int) -> int:
        return self._file.metadata.row_group(block).num_rows

    def read(self, block: int, names: Sequence[str]) -> pa.Table:
        return self._file.read_row_group(block, columns=list(names), use_threads=False)


class _ArrowFile:
    """Stream of record batches, as `datasets` saves it, or Arrow file; mapped into memory."""

    def __init__(self, path: str) -> None:
        source = pa.memory_map(path)
        try:
            batches = list(pa.ipc.open_stream(source))
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
            batches = [reader.get_batch(k) for k in range(reader.num_record_batches)]
        self._batches = [batch for batch in batches if batch.num_rows]
        self.schema, self.blocks = batches[0].schema, len(self._batches)

    def rows(self, block: int) -> int:
        return self._batches[block].num_rows

    def read(self, block: int, names: Sequence[str]) -> pa.Table:
        return pa.Table.from_batches([self._batches[block].select(list(names))])


# Parquet decodes a row group as a whole. The cache holds the last ones, so that reading records in
# order, or close to each other, does not decode a row group for each record.
@functools.lru_cache(maxsize=8)
def _block(file: Any, block: int, names: tuple[str, ...]) -> pa.Table:
    return file.read(block, names)


def _open(path: str) -> Any:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is not there")
    try:
        return _ArrowFile(path) if path.endswith(".arrow") else _ParquetFile(path)
    except (pa.ArrowException, OSError, IndexError) as error:  # IndexError: no record batches
        told = str(error).splitlines()[0][:200]
        raise ValueError(f"{path} is no whole Parquet or Arrow file: {told}") from error


def _chosen(names: Sequence[str], wanted: str, usual: Sequence[str]) -> str:
    return wanted if wanted in names else next((name for name in usual if name in names), "")


def _image(value: Any, where: str) -> tuple[bytes, str]:
    """Returns the bytes of an image, and its path or ""."""
    encoded, path = value, ""
    if isinstance(value, dict):
        encoded, path = value.get("bytes"), value.get("path") or ""
    if not isinstance(encoded, bytes):
        raise ValueError(f"{where}: there are no bytes of an image, but {str(value)[:80]}")
    if len(encoded) > MAX_IMAGE_BYTES:
        raise ValueError(f"{where}: an image of {len(encoded):,} bytes is too large")
    return encoded, path


def _texts(value: Any, where: str) -> list[str]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    values = [
        each.get("raw", each.get("text")) if isinstance(each, dict) else each for each in values
    ]
    if not all(isinstance(text, str) for text in values):
        raise ValueError(f"{where}: {str(value)[:80]} is no caption")
    return [cleaned(text) for text in values if text.strip()]
