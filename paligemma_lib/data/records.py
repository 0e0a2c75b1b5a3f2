"""Record files read by number: TFRecord, with an index of offsets, and ArrayRecord.

    records = open_records(["data-train.tfrecord-00000-of-00002", ...])
    len(records), records.read([17, 3]), records.where(17)

Checksums are verified: a record whose bits have changed raises `CorruptRecord`. A file that is cut
off is only opened where it is known how many records it should hold; those that it has lost are
damaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np

from paligemma_lib.data.files import in_parallel, read_parts, stat
from paligemma_lib.data.offsets import FOOT, HEAD, masked_crc, offsets_of
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.retries import watched


class CorruptRecord(ValueError):
    """A record is not as it was written; the message says which, in which file."""


class Records:
    """Byte strings by number, from several files one after the other.

    Attributes:
      counts: int64[files], how many records each file holds.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        self.paths = list(paths)
        self.counts = np.array(counts, np.int64)
        self._firsts = np.cumsum(self.counts) - self.counts

    def __len__(self) -> int:
        return int(self.counts.sum())

    def read(self, numbers: Iterable[int]) -> list[bytes]:
        """The records with these numbers. Raises CorruptRecord where one is damaged."""
        return in_parallel(self._read, map(self._place, numbers), remote=is_remote(self.paths[0]))

    def where(self, number: int) -> str:
        """File and place of a record, for messages."""
        return self._where(self._place(number))

    def _place(self, number: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return file, int(number - self._firsts[file])

    def _where(self, place: tuple[int, int]) -> str:
        return f"{self.paths[place[0]]}, record {place[1]}"

    def _read(self, place: tuple[int, int]) -> bytes:
        raise NotImplementedError


class TFRecords(Records):
    """TFRecord files.

    Args:
      paths: of the files.
      counts: how many records each should hold, to open them also if they hold less.

    Raises:
      FileNotFoundError: there are no such files.
      ValueError: a file is cut off, compressed, or of another kind.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int] | None = None):
        self._offsets, self._problems = offsets_of(paths)
        found = [len(offsets) - 1 for offsets in self._offsets]
        if counts is None and any(self._problems):
            raise ValueError(next(filter(None, self._problems)))
        super().__init__(paths, [*map(max, found, counts or found)])

    def _read(self, place: tuple[int, int]) -> bytes:
        file, number = place
        if number >= (found := len(self._offsets[file]) - 1):
            raise CorruptRecord(
                self._problems[file]
                or f"{self.paths[file]} is cut off: it holds {found} of {self.counts[file]} "
                "records. Copy or build the file again"
            )
        start, end = (int(offset) for offset in self._offsets[file][number : number + 2])
        length = end - start - HEAD - FOOT
        for _ in range(2):  # what came wrong over a network may come right
            data, checksum = read_parts(self.paths[file], start + HEAD, length, FOOT)
            if masked_crc(data) == checksum:
                return data
        raise CorruptRecord(
            f"{self._where(place)} (at byte {start}) is damaged: its checksum does not match. "
            "Copy or build the file again"
        )


class ArrayRecords(Records):
    """ArrayRecord files, read by their own reader.

    Raises:
      FileNotFoundError: there are no such files.
      ValueError: the files are remote, or damaged.
    """

    def __init__(self, paths: Sequence[str]):
        from array_record.python import array_record_module  # only where such files are read

        options = "readahead_buffer_size:0,max_parallelism:0"  # as its makers say, for random reads
        self._readers = []
        for path in paths:
            if is_remote(path):
                raise ValueError(
                    f"{path}: the ArrayRecord reader opens local files only. Copy the files, or "
                    "build the data set as TFRecord (tfds build --file_format=tfrecord)"
                )
            stat(path)
            self._readers.append(array_record_module.ArrayRecordReader(path, options))
            if not self._readers[-1].ok():
                raise ValueError(f"{path} is no ArrayRecord file, or damaged: copy it again")
        super().__init__(paths, [reader.num_records() for reader in self._readers])

    def _read(self, place: tuple[int, int]) -> bytes:
        file, number = place
        try:
            with watched(self.paths[file]):
                return self._readers[file].read([number])[0]
        except RuntimeError as error:
            raise CorruptRecord(f"{self._where(place)} is damaged: {error}") from error


def open_records(paths: Sequence[str], counts: Sequence[int] | None = None) -> Records:
    """TFRecord files, see there, or ArrayRecord files, whose names have `.array_record` in them."""
    is_array_record = ".array_record" in os.path.basename(paths[0])
    return ArrayRecords(paths) if is_array_record else TFRecords(paths, counts)
