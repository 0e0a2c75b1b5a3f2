"""Reads rows of Parquet files by number, and keeps row groups in memory as far as they fit.

    images = BlockCache(bytes_for_images())
    images.row(file, 3, 17, ("image",))                # {"image": {"bytes": ..., "path": "a.jpg"}}

Parquet compresses a row group as a whole, so a single row costs about half of it. Rows in any order
are fast only from row groups that were kept. What is in memory changes the time alone: a row can be
read if, and only if, reading its row group from the start gets as far as this row.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict, deque
from typing import Any
from weakref import WeakKeyDictionary, finalize, ref

import psutil
import pyarrow as pa

from paligemma_lib.data.sources.arrow_errors import UnreadableBlock
from paligemma_lib.data.sources.parquet_file import ParquetFile

_MEMORY_SHARE = 8  # one part in so many of what is free
_MAX_BYTES = 2 << 30
_ALWAYS_KEPT = 8  # row groups, however large: a file may be one row group
# Reads of which two from the same row group make it worth loading: sources read in the order of the
# file, so those of one call follow each other, and two threads read at a time.
_LATELY = 4


_Part = tuple[int, tuple[str, ...]]  # a row group, and names of columns


class BlockCache:
    """Row groups in memory, those used last; several threads may read at the same time.

    Args:
      most: bytes to keep.
      eager: whether to load a row group for its first row, even where others must leave for it.
        Else such a row is read without the rows behind it, and only a second one from the same row
        group within a short time loads it.

    Attributes:
      bytes: size of what is kept.
    """

    def __init__(self, most: int, *, eager: bool = False) -> None:
        self._most, self._eager = most, eager
        # What is kept of a file goes with it. A part that is None cannot be read as a whole.
        self._tables: WeakKeyDictionary[ParquetFile, dict[_Part, pa.Table | None]]
        self._tables = WeakKeyDictionary()
        self._sizes: OrderedDict[tuple[ref[ParquetFile], _Part], int] = OrderedDict()
        self._lately: deque[tuple[ref[ParquetFile], _Part]] = deque(maxlen=_LATELY)
        self._gone: deque[ref[ParquetFile]] = deque()  # filled when files are closed
        self.bytes = 0
        self._lock = threading.Lock()

    def row(
        self, file: ParquetFile, block: int, row: int, names: tuple[str, ...]
    ) -> dict[str, Any]:
        """Returns columns of a row. Raises UnreadableBlock if it cannot be read."""
        table = self._table(file, (block, names))
        found = file.row(block, row, names) if table is None else table.slice(row, 1)
        return found.to_pylist()[0]

    def _table(self, file: ParquetFile, part: _Part) -> pa.Table | None:
        """Returns a row group that is kept, or is now; None if the row is to be read alone."""
        key = (ref(file), part)
        with self._lock:
            self._forget()
            if key in self._sizes:
                self._sizes.move_to_end(key)
                return self._tables[file][part]
            again = self._eager or key in self._lately
            self._lately.append(key)
            fits = self.bytes + file.size(part[0]) <= self._most
        if not (again or fits):
            return None
        try:
            table = file.read(*part)
        except UnreadableBlock:  # somewhere; rows before the damage can be read
            table = None
        with self._lock:
            if file not in self._tables:
                self._tables[file] = {}
                finalize(file, self._gone.append, key[0])
            self._tables[file][part] = table
            self.bytes -= self._sizes.get(key, 0)  # another thread may have been faster
            self._sizes[key] = table.nbytes if table is not None else 0
            self.bytes += self._sizes[key]
            while self.bytes > self._most and len(self._sizes) > _ALWAYS_KEPT:
                (old, part), size = self._sizes.popitem(last=False)
                self.bytes -= size
                if (opened := old()) is not None:
                    del self._tables[opened][part]
        return table

    def _forget(self) -> None:
        """Takes what was kept of closed files off the count."""
        while self._gone:
            gone = self._gone.popleft()
            for key in [key for key in self._sizes if key[0] is gone]:
                self.bytes -= self._sizes.pop(key)


@functools.cache
def bytes_for_images() -> int:
    """Returns how many bytes of images may be kept: an eighth of the free memory, at most 2 GiB."""
    return min(psutil.virtual_memory().available // _MEMORY_SHARE, _MAX_BYTES)
