"""Reads row groups of a Parquet file, or rows of them; no more of it than is asked for.

file = ParquetFile("train-00000-of-00002.parquet")
file.read(0, ["caption"]).to_pylist(), file.row(0, 17, ["image"])
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paligemma_lib.data.files import SeekableFile
from paligemma_lib.data.sources.arrow_errors import UnreadableBlock, arrow_errors
from paligemma_lib.runtime.atomic import is_remote

# Of a row group, as its file says: it is held in memory.
_MAX_BLOCK_BYTES = 8 << 30
_MAX_BLOCK_ROWS = 1 << 26
# A row group of more rows than this is decoded several rows at a time to get to one of them.
_STEPS = 1000
# Rows that are decoded together, and how much more than they say they may take.
_TOGETHER = 64
_FOLDS, _SLACK = 4, 256 << 20


class ParquetFile:
    """Row groups of a Parquet file; reads only the columns that are asked for.

    Attributes:
      schema: names and types of the columns.
      blocks: number of row groups.
    """

    problem = ""  # the list of row groups is at the end: without it, nothing can be read

    def __init__(self, path: str) -> None:
        if is_remote(path):
            self._file = pq.ParquetFile(pa.PythonFile(SeekableFile(path), "r"))
        else:
            # Mapped, so that of a row group no more is read than is decoded.
            self._file = pq.ParquetFile(path, memory_map=True)
        unpacked_size(self._file.metadata)
        self.schema, self.blocks = self._file.schema_arrow, self._file.num_row_groups

    def read(self, block: int, names: Sequence[str]) -> pa.Table:
        """Returns columns of a row group; "image.path" is one field of a column of structs."""
        with arrow_errors():
            self._check_size(block)
            if not self.rows(block):
                return self._file.read_row_group(block, columns=list(names), use_threads=False)
            most, size, batches = _FOLDS * self.size(block) + _SLACK, 0, []
            # A dictionary may say less than its values take. So it is unpacked bit by bit.
            for batch in self._batches(block, _TOGETHER, names):
                batches.append(batch)
                if (size := size + batch.nbytes) > most:
                    raise UnreadableBlock(f"it unpacks to more than {most:,} bytes, and says less")
            return pa.Table.from_batches(batches)

    def row(self, block: int, row: int, names: Sequence[str]) -> pa.Table:
        """Returns columns of one row, without decoding those that are far behind it.

        Whether it can be read depends on the rows before it, and never on what was read before.
        """
        with arrow_errors():
            self._check_size(block)
            step = 1 + self.rows(block) // _STEPS
            batches = self._batches(block, step, names)
            batch = next(itertools.islice(batches, row // step, None), None)
            if batch is None or row % step >= batch.num_rows:
                raise UnreadableBlock("its columns have different numbers of rows")
            return pa.Table.from_batches([batch.slice(row % step, 1)])

    def _batches(self, block: int, step: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return self._file.iter_batches(step, [block], list(names), use_threads=False)

    def _check_size(self, block: int) -> None:
        if (size := self.size(block)) > _MAX_BLOCK_BYTES:
            raise UnreadableBlock(f"it unpacks to {size:,} bytes, which is too much")

    def size(self, block: int) -> int:
        """Returns the size in bytes of a row group after decompression, as the file says."""
        return unpacked_size(self._file.metadata, block)

    def rows(self, block: int) -> int:
        """Returns the number of rows of a row group."""
        return self._file.metadata.row_group(block).num_rows

    def field(self, block: int, column: str, field: str) -> list[str | None]:
        """Returns one field of a column of structs, without reading the other fields."""
        with arrow_errors():
            found = self.read(block, [f"{column}.{field}"]).column(column)
            return pc.struct_field(found, field).to_pylist()


def unpacked_size(metadata: pq.FileMetaData, block: int | None = None) -> int:
    """Returns the size in bytes of row groups after decompression, as their file says.

    Args:
      metadata: of the file.
      block: number of the row group; None: all.

    Raises:
      UnreadableBlock: a number of rows or bytes is out of range.
    """
    size = 0
    # Only numbers of row groups are asked for: on those of a damaged column, pyarrow aborts.
    for number in range(metadata.num_row_groups) if block is None else [block]:
        group = metadata.row_group(number)
        if not 0 <= group.num_rows <= _MAX_BLOCK_ROWS or group.total_byte_size < 0:
            raise UnreadableBlock(f"row group {number} says that it has {group.num_rows:,} rows")
        size += group.total_byte_size
    return size
