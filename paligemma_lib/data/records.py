"""Record files read by number: TFRecord, with an index of offsets, and ArrayRecord.

    records = open_records(["data-train.tfrecord-00000-of-00002", ...])
    len(records), records.read([17, 3]), records.where(17)

A TFRecord file is a chain of records: length (uint64), its CRC, data, the data's CRC; see
tensorflow.org/tutorials/load_data/tfrecord. Only the 12-byte heads are read to find the offsets,
once: they are kept beside the data (or in the user's cache, if that is read-only) together with
the files' sizes and times, and made anew when those change. Checksums are verified: a record whose
bits have changed raises `DamagedRecord`; a file that is cut off is not opened at all.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import tensorflow as tf

from paligemma_lib.data.files import (
    in_parallel,
    is_remote,
    join,
    open_file,
    read_parts,
    read_whole,
    stat,
)
from paligemma_lib.retries import patiently, watched

_HEAD, _FOOT = 12, 4  # length and its CRC; the data's CRC
_MAX_RECORD_BYTES = 1 << 30
_MAX_INDEX_BYTES = 1 << 32


class DamagedRecord(ValueError):
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
        """The records with these numbers. Raises DamagedRecord where one is damaged."""
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

    Raises:
      FileNotFoundError: there are no such files.
      ValueError: a file is damaged, compressed, or of another kind.
    """

    def __init__(self, paths: Sequence[str]):
        self._offsets = _index(paths)
        super().__init__(paths, [len(offsets) - 1 for offsets in self._offsets])

    def _read(self, place: tuple[int, int]) -> bytes:
        file, number = place
        start, end = (int(offset) for offset in self._offsets[file][number : number + 2])
        length = end - start - _HEAD - _FOOT
        for _ in range(2):  # what came wrong over a network may come right
            data, checksum = read_parts(self.paths[file], start + _HEAD, length, _FOOT)
            if _masked_crc(data) == checksum:
                return data
        raise DamagedRecord(
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
            raise DamagedRecord(f"{self._where(place)} is damaged: {error}") from error


def open_records(paths: Sequence[str]) -> Records:
    """TFRecord files, or ArrayRecord files, which are known by `.array_record` in their names."""
    is_array_record = ".array_record" in os.path.basename(paths[0])
    return ArrayRecords(paths) if is_array_record else TFRecords(paths)


def _index(paths: Sequence[str]) -> list[np.ndarray]:
    """Per file, int64[records + 1]: where each record starts, and where the last one ends."""
    stats = np.array([stat(path) for path in paths], np.int64)
    places = _index_places(paths)
    for place in places:
        kept = _read_index(place, stats)
        if kept is not None:
            return kept
    offsets = in_parallel(_scan, zip(paths, stats[:, 0], strict=True), remote=is_remote(paths[0]))
    for place in places:
        if _write_index(place, stats, offsets):
            break
    return offsets


def _scan(path_and_size: tuple[str, int]) -> np.ndarray:
    """Walks through a file from head to head."""
    return patiently(lambda: _heads(*path_and_size), path_and_size[0])


def _heads(path: str, size: int) -> np.ndarray:
    """Where each record starts, and where the last one ends."""
    offsets = [0]
    with open_file(path) as file:
        while (start := offsets[-1]) < size:
            file.seek(start)
            head = file.read(_HEAD)
            length = int.from_bytes(head[:8], "little")
            end = start + _HEAD + length + _FOOT
            if len(head) == _HEAD and _masked_crc(head[:8]) != head[8:]:
                raise ValueError(
                    f"{path} is no TFRecord file, or damaged at byte {start}: the checksum of "
                    f"record {len(offsets) - 1}'s length does not match. Compressed files cannot "
                    "be read by number: write them without compression"
                )
            if end > size or length > _MAX_RECORD_BYTES:
                raise ValueError(
                    f"{path} is cut off: record {len(offsets) - 1} at byte {start} needs "
                    f"{end - start} bytes, the file ends at {size}. Copy or build the file again"
                )
            offsets.append(end)
    return np.array(offsets, np.int64)


def _masked_crc(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as in the TFRecord format."""
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def _index_places(paths: Sequence[str]) -> list[str]:
    """Where an index may be kept: beside the data, else in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache")
    full = [path if is_remote(path) else os.path.abspath(path) for path in paths]
    beside, elsewhere = _digest(os.path.basename(path) for path in paths), _digest(full)
    return [
        join(os.path.dirname(full[0]), f".offsets-{beside}"),
        os.path.join(cache, "paligemma_lib", f"offsets-{elsewhere}"),
    ]


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _read_index(place: str, stats: np.ndarray) -> list[np.ndarray] | None:
    """The offsets, unless there are none, or files have changed since."""
    try:
        data = read_whole(place, _MAX_INDEX_BYTES)
    except (OSError, ValueError, tf.errors.OpError):
        return None
    body, checksum = data[:-_FOOT], data[-_FOOT:]
    if _masked_crc(body) != checksum:
        return None
    table, offsets = np.split(np.frombuffer(body, "<i8"), [stats.size + len(stats)])
    table = table.reshape(-1, 3)
    if not np.array_equal(table[:, :2], stats):
        return None
    return np.split(offsets, np.cumsum(table[:-1, 2]))


def _write_index(place: str, stats: np.ndarray, offsets: Sequence[np.ndarray]) -> bool:
    """Whether the index could be written; it appears whole or not at all.

    Its form, all little-endian: per file size, time and number of offsets, int64[files, 3]; the
    offsets of all files, int64[...]; the checksum of all that.
    """
    table = np.column_stack([stats, [len(array) for array in offsets]])
    body = np.concatenate([table.ravel(), *offsets]).astype("<i8").tobytes()
    temporary = f"{place}.{uuid.uuid4().hex}"
    try:
        tf.io.gfile.makedirs(os.path.dirname(place))
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(body + _masked_crc(body))
        tf.io.gfile.rename(temporary, place, overwrite=True)
    except tf.errors.OpError:
        return False
    return True
