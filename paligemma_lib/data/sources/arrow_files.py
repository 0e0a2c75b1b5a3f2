"""Reads blocks of Parquet and local Arrow files: row groups of the former, batches of the latter.

file = open_arrow("train-00000-of-00002.parquet")
for block in range(file.blocks):
    file.read(block, ["caption"]).to_pylist()
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from paligemma_lib.data.files import stat
from paligemma_lib.data.sources.arrow_errors import UnreadableBlock, arrow_errors
from paligemma_lib.data.sources.parquet_file import ParquetFile
from paligemma_lib.runtime.atomic import is_remote


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
                with arrow_errors():
                    batches.extend(stream)  # keeps those before an error
            except UnreadableBlock as error:
                self.problem = _told(path, error)
        self._batches = [batch for batch in batches if batch.num_rows]
        self.blocks = len(self._batches)

    def read(self, block: int, names: Sequence[str]) -> pa.Table:
        """Returns columns of a batch."""
        with arrow_errors():
            chosen = self._batches[block].select(list(names))
            # The file is mapped, so that a wrong offset in it would read any memory.
            chosen.validate(full=True)
            return pa.Table.from_batches([chosen])

    def row(self, block: int, row: int, names: Sequence[str]) -> pa.Table:
        """Returns columns of one row."""
        with arrow_errors():
            chosen = self._batches[block].select(list(names)).slice(row, 1)
            chosen.validate(full=True)  # as above; of this row alone
            return pa.Table.from_batches([chosen])

    def rows(self, block: int) -> int:
        """Returns the number of rows of a batch."""
        return self._batches[block].num_rows

    def field(self, block: int, column: str, field: str) -> list[str | None]:
        """Returns one field of a column of structs."""
        with arrow_errors():
            return pc.struct_field(self.read(block, [column]).column(column), field).to_pylist()


def open_arrow(path: str) -> ParquetFile | ArrowFile:
    """Opens a file by its suffix.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: it is no regular file, not a Parquet or Arrow file, or a remote file of Arrow. A
        file of Arrow that is cut off has a `problem`.
    """
    stat(path)
    if is_remote(path) and path.endswith(".arrow"):
        raise ValueError(f"{path}: Arrow files are read from a disk only. Copy the folder there")
    try:
        with arrow_errors():
            return ArrowFile(path) if path.endswith(".arrow") else ParquetFile(path)
    except UnreadableBlock as error:
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
            with contextlib.suppress(UnreadableBlock), arrow_errors():
                values += file.read(block, [column]).column(0).unique().to_pylist()
    return [*dict.fromkeys(values)]


def _told(path: str, error: UnreadableBlock) -> str:
    return f"{path} is not a complete Parquet or Arrow file: {error}"
