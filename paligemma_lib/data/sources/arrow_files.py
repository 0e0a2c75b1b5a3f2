"""Reads blocks of local Parquet and Arrow files: row groups of the former, batches of the latter.

file = open_arrow("train-00000-of-00002.parquet")
for block in range(file.blocks):
    file.read(block, ["caption"]).to_pylist()
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from paligemma_lib.data.records import CorruptRecord
from paligemma_lib.runtime.regular_files import check_regular

DAMAGE = (pa.ArrowException, OSError)  # what pyarrow raises for damaged bytes


class ParquetFile:
    """Row groups of a Parquet file; reads only the columns that are asked for.

    Attributes:
      schema: names and types of the columns.
      blocks: number of row groups.
    """

    problem = ""  # the list of row groups is at the end: without it, nothing can be read

    def __init__(self, path: str) -> None:
        self._file = pq.ParquetFile(path)
        self.schema, self.blocks = self._file.schema_arrow, self._file.num_row_groups

    def read(self, block: int, names: Sequence[str]) -> pa.Table:
        """Returns columns of a row group; "image.path" is one field of a column of structs."""
        return self._file.read_row_group(block, columns=list(names), use_threads=False)

    def rows(self, block: int) -> int:
        """Returns the number of rows of a row group."""
        return self._file.metadata.row_group(block).num_rows

    def field(self, block: int, column: str, field: str) -> list[str | None]:
        """Returns one field of a column of structs, without reading the other fields."""
        found = self.read(block, [f"{column}.{field}"]).column(column)
        return pc.struct_field(found, field).to_pylist()


class ArrowFile:
    """Batches of a stream, as `datasets` saves it, or of an Arrow file; mapped into memory.

    Attributes:
      schema: names and types of the columns.
      blocks: number of batches that have rows.
      problem: what ended the batches early; "" if nothing did.
    """

    def __init__(self, path: str) -> None:
        source = pa.memory_map(path)
        self.problem = ""
        batches: list[pa.RecordBatch] = []
        try:
            stream = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(source)
            self.schema = file.schema
            batches += [file.get_batch(k) for k in range(file.num_record_batches)]
        else:
            self.schema = stream.schema
            try:
                batches.extend(stream)  # keeps those before an error
            except DAMAGE as error:
                self.problem = _told(path, error)
        self._batches = [batch for batch in batches if batch.num_rows]
        self.blocks = len(self._batches)

    def read(self, block: int, names: Sequence[str]) -> pa.Table:
        """Returns columns of a batch."""
        return pa.Table.from_batches([self._batches[block].select(list(names))])

    def rows(self, block: int) -> int:
        """Returns the number of rows of a batch."""
        return self._batches[block].num_rows

    def field(self, block: int, column: str, field: str) -> list[str | None]:
        """Returns one field of a column of structs."""
        return pc.struct_field(self.read(block, [column]).column(column), field).to_pylist()


def open_arrow(path: str) -> ParquetFile | ArrowFile:
    """Opens a file by its suffix.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: it is no regular file, or not a Parquet or Arrow file. A file of Arrow that is cut
        off has a `problem`.
    """
    check_regular(path)
    try:
        return ArrowFile(path) if path.endswith(".arrow") else ParquetFile(path)
    except DAMAGE as error:
        raise ValueError(_told(path, error)) from error


def open_all(
    paths: Sequence[str],
) -> tuple[dict[int, ParquetFile | ArrowFile], dict[int, str]]:
    """Opens files; returns those that can be opened, and what is wrong with each file, by index."""
    files: dict[int, ParquetFile | ArrowFile] = {}
    problems: dict[int, str] = {}
    for number, path in enumerate(paths):
        try:
            files[number] = open_arrow(path)
        except ValueError as error:
            problems[number] = str(error)
        else:
            problems |= {number: files[number].problem} if files[number].problem else {}
    return files, problems


def distinct_values(files: Iterable[ParquetFile | ArrowFile], column: str) -> list[Any]:
    """Returns the values of a column, without repetition, in the order of the rows.

    Blocks that cannot be read are left out; reading their rows tells what is wrong.
    """
    values: list[Any] = []
    for file in files:
        for block in range(file.blocks):
            with contextlib.suppress(*DAMAGE):
                values += file.read(block, [column]).column(0).unique().to_pylist()
    return [*dict.fromkeys(values)]


def unreadable(where: str, error: Exception) -> CorruptRecord:
    """Returns the error to raise for a row that cannot be read, one of DAMAGE."""
    told = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return CorruptRecord(f"{where} cannot be read: {told}. Copy the file again")


def _told(path: str, error: Exception) -> str:
    told = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return f"{path} is not a complete Parquet or Arrow file: {told}"


# Parquet decodes a row group as a whole. The cache holds the last ones, so that reading records in
# order, or close to each other, does not decode a row group for each record.
@functools.lru_cache(maxsize=8)
def cached_block(file: ParquetFile | ArrowFile, block: int, names: tuple[str, ...]) -> pa.Table:
    """Returns columns of a block, from memory if it was read lately."""
    return file.read(block, names)
