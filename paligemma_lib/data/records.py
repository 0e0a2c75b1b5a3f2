"""Reads records of TFRecord files (through an index of offsets) and ArrayRecord files by number.

    records = open_records(["data-train.tfrecord-00000-of-00002", ...])
    len(records), records.read([17, 3]), records.where(17)

Checksums are verified: reading a damaged record raises `CorruptRecord`. A truncated file can be
opened if the caller tolerates it. Then reading one of the lost records raises `CorruptRecord`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from paligemma_lib.data.files import in_parallel, read_parts, stat
from paligemma_lib.data.offsets import FOOT, HEAD, masked_crc, offsets_of
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.retries import watched


class CorruptRecord(ValueError):
    """Raised for a damaged or lost record; the message names the record and its file."""


class Records:
    """Records (byte strings) of several files, numbered through all files in their order.

    Attributes:
      paths: paths of the files.
      counts: int64[files], the number of records of each file.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        self.paths = list(paths)
        self.counts = np.array(counts, np.int64)
        self._firsts = np.cumsum(self.counts) - self.counts

    def __len__(self) -> int:
        return int(self.counts.sum())

    def read(self, numbers: Iterable[int]) -> list[bytes]:
        """Reads the records with the given numbers. Raises CorruptRecord if one is damaged."""
        return in_parallel(self._read, map(self._place, numbers), remote=is_remote(self.paths[0]))

    def where(self, number: int) -> str:
        """Returns the file of a record and its number in that file, for messages."""
        return self._where(self._place(number))

    def _place(self, number: int) -> tuple[int, int]:
        # The last file whose first number is <= number. This skips empty files: counts [2, 0, 3]
        # give firsts [0, 2, 2], and number 2 is in the third file.
        file = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return file, int(number - self._firsts[file])

    def _where(self, place: tuple[int, int]) -> str:
        return f"{self.paths[place[0]]}, record {place[1]}"

    def _read(self, place: tuple[int, int]) -> bytes:
        raise NotImplementedError


class TFRecords(Records):
    """Records of TFRecord files.

    Args:
      paths: paths of the files.
      counts: number of records that each file should hold. With it, files that hold fewer records,
        or are damaged, can be opened too.
      tolerant: whether to open such files also without `counts`. What is lost of a file then counts
        as one record.

    Raises:
      FileNotFoundError: a file does not exist.
      ValueError: a file is truncated, compressed, or not a TFRecord file, `counts` is None, and
        `tolerant` is false.
    """

    def __init__(
        self, paths: Sequence[str], counts: Sequence[int] | None = None, *, tolerant: bool = False
    ):
        self._offsets, self._problems = offsets_of(paths)
        found = [len(offsets) - 1 for offsets in self._offsets]
        if counts is None:
            if any(self._problems) and not tolerant:
                raise ValueError(next(filter(None, self._problems)))
            counts = [n + bool(lost) for n, lost in zip(found, self._problems, strict=True)]
        super().__init__(paths, [*map(max, found, counts)])

    def _read(self, place: tuple[int, int]) -> bytes:
        file, number = place
        if number >= (found := len(self._offsets[file]) - 1):
            raise CorruptRecord(
                self._problems[file]
                or f"{self.paths[file]} is truncated: it has {found} of {self.counts[file]} "
                "records. Copy or build the file again"
            )
        start, end = (int(offset) for offset in self._offsets[file][number : number + 2])
        length = end - start - HEAD - FOOT
        for _ in range(2):  # a second read may succeed if the first was corrupted in transfer
            data, checksum = read_parts(self.paths[file], start + HEAD, length, FOOT)
            if masked_crc(data) == checksum:
                return data
        raise CorruptRecord(
            f"{self._where(place)} (at byte {start}) is damaged: its checksum does not match. "
            "Copy or build the file again"
        )


class ArrayRecords(Records):
    """Records of ArrayRecord files, read by the reader of the `array_record` package.

    Raises:
      FileNotFoundError: a file does not exist.
      ValueError: a file is remote or damaged.
    """

    def __init__(self, paths: Sequence[str]):
        from array_record.python import array_record_module  # imported only if it is needed

        # What ArrayRecord recommends for random access.
        options = "readahead_buffer_size:0,max_parallelism:0"
        self._readers: list[Any] = []
        counts: list[int] = []
        for path in paths:
            if is_remote(path):
                raise ValueError(
                    f"{path}: the ArrayRecord reader opens local files only. Copy the files, or "
                    "build the data set as TFRecord (tfds build --file_format=tfrecord)"
                )
            stat(path)  # raises FileNotFoundError
            try:
                self._readers.append(array_record_module.ArrayRecordReader(path, options))
                counts.append(self._readers[-1].num_records() if self._readers[-1].ok() else -1)
            except Exception:  # its binding has exceptions of its own
                counts.append(-1)
            if counts[-1] < 0:
                raise ValueError(f"{path} is not an ArrayRecord file, or is damaged: copy it again")
        super().__init__(paths, counts)

    def _read(self, place: tuple[int, int]) -> bytes:
        file, number = place
        try:
            with watched(self.paths[file]):
                return self._readers[file].read([number])[0]
        except Exception as error:  # of its binding
            raise CorruptRecord(f"{self._where(place)} is damaged: {error}") from error


def open_records(
    paths: Sequence[str], counts: Sequence[int] | None = None, *, tolerant: bool = False
) -> Records:
    """Opens record files: ArrayRecord if `.array_record` is in the first name, else TFRecord.

    Args and errors are those of `TFRecords` and `ArrayRecords`. An ArrayRecord file that is cut off
    is always an error, as its index is at its end.
    """
    is_array_record = ".array_record" in os.path.basename(paths[0])
    return ArrayRecords(paths) if is_array_record else TFRecords(paths, counts, tolerant=tolerant)
