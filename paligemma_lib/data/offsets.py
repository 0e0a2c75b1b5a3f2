"""Finds the offsets of the records in TFRecord files, and caches them in an index file.

    offsets, problems = offsets_of(["data-train.tfrecord-00000-of-00002", ...])

A TFRecord file is a sequence of records. Each consists of the length (uint64), the CRC of the
length, the data, and the CRC of the data; see tensorflow.org/tutorials/load_data/tfrecord. The scan
reads only the 12-byte heads. The index is saved beside the data, or in the user's cache if that
folder is read-only. It includes the sizes and times of the files, and is rebuilt when they change,
or when the last record of a file does not begin where the index says.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import tensorflow as tf

from paligemma_lib.data.files import in_parallel, join, open_file, read_parts, read_whole, stat
from paligemma_lib.data.storage_errors import storage_errors
from paligemma_lib.runtime.atomic import is_remote, path_of
from paligemma_lib.runtime.put_aside import put_aside
from paligemma_lib.runtime.retries import retry

HEAD, FOOT = 12, 4  # bytes: the length and its CRC; the CRC of the data

_MAX_RECORD_BYTES = 1 << 30
_MAX_INDEX_BYTES = 1 << 32
_ABANDONED = 3600  # seconds: a temporary file of an index is written at once


def offsets_of(paths: Sequence[str]) -> tuple[list[np.ndarray], list[str]]:
    """Returns the offsets of the records of each file, and what is wrong with each file.

    Returns:
      Per file, int64[records + 1]: the start of each record, then the end of the last one. And per
      file, "" if it is whole, otherwise why the records end early.

    Raises:
      FileNotFoundError: a file does not exist.
    """
    stats = np.array([stat(path) for path in paths], np.int64)
    far, places = is_remote(paths[0]), _index_places(paths)
    for place in places:
        kept = _read_index(place, stats)
        if kept is not None and all(in_parallel(_fits, zip(paths, kept, strict=True), remote=far)):
            return kept, [""] * len(kept)
    scanned = in_parallel(_scan, zip(paths, stats[:, 0], strict=True), remote=far)
    offsets = [found for found, _ in scanned]
    problems = [problem for _, problem in scanned]
    # Damaged files get no index, so that the next call scans them again and finds the problem.
    for place in () if any(problems) else places:
        if _write_index(place, stats, offsets):
            break
    return offsets, problems


def _scan(path_and_size: tuple[str, int]) -> tuple[np.ndarray, str]:
    """Scans a file; after a transient error, scans it again."""
    with storage_errors(path_and_size[0]):
        return retry(lambda: _heads(*path_and_size), path_and_size[0])


def _heads(path: str, size: int) -> tuple[np.ndarray, str]:
    """Reads the head of each record; returns the offsets, and the problem that ended the scan."""
    offsets, problem = [0], ""
    with open_file(path) as file:
        while not problem and (start := offsets[-1]) < size:
            file.seek(start)
            head = file.read(HEAD)
            length = int.from_bytes(head[:8], "little")
            end = start + HEAD + length + FOOT
            # The CRC is checked before the length is used: a wrong length leads to a wrong place. A
            # head that the file's end cuts off has no CRC, and counts as cut off below.
            if len(head) == HEAD and masked_crc(head[:8]) != head[8:]:
                problem = (
                    f"{path} is not a TFRecord file, or is damaged at byte {start}: the checksum "
                    f"of record {len(offsets) - 1}'s length does not match. Compressed files "
                    "cannot be read by number: write them without compression"
                )
            elif end > size or length > _MAX_RECORD_BYTES:
                problem = (
                    f"{path} is truncated: record {len(offsets) - 1} at byte {start} needs "
                    f"{end - start} bytes, but the file ends at {size}. Copy or build the file "
                    "again"
                )
            else:
                offsets.append(end)
    return np.array(offsets, np.int64), problem


def _fits(path_and_offsets: tuple[str, np.ndarray]) -> bool:
    """Returns whether a record begins where the last one should."""
    path, offsets = path_and_offsets
    if len(offsets) == 1:
        return True
    (head,) = read_parts(path, int(offsets[-2]), HEAD)
    length = int(offsets[-1] - offsets[-2]) - HEAD - FOOT
    return int.from_bytes(head[:8], "little") == length and masked_crc(head[:8]) == head[8:]


def masked_crc(data: bytes) -> bytes:
    """Returns the CRC-32C of the data, masked as in the TFRecord format, as 4 bytes."""
    crc = google_crc32c.value(data)
    # Rotated right by 15 bits, plus a constant, modulo 2**32. Python's integers are unbounded, so
    # bits of `crc << 17` above the 32nd are dropped only at the end.
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def _index_places(paths: Sequence[str]) -> list[str]:
    """Returns the paths where the index may be: beside the data, then in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache")
    full = [path if is_remote(path) else os.path.abspath(path) for path in paths]
    # Beside the data, file names suffice, so the index stays valid when the folder moves. The cache
    # serves all folders, so there the name depends on the full paths.
    beside, elsewhere = _digest(os.path.basename(path) for path in paths), _digest(full)
    return [
        join(os.path.dirname(full[0]), f".offsets-{beside}"),
        os.path.join(cache, "paligemma_lib", f"offsets-{elsewhere}"),
    ]


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:16]


def _read_index(place: str, stats: np.ndarray) -> list[np.ndarray] | None:
    """Reads the offsets; returns None if there is no valid index, or if files have changed.

    A damaged index is put aside.
    """
    try:
        data = read_whole(place, _MAX_INDEX_BYTES)
    except OSError:
        return None
    except ValueError as error:  # no regular file, or one of a size that no index has
        put_aside(path_of(place), str(error))
        return None
    body, checksum = data[:-FOOT], data[-FOOT:]
    if masked_crc(body) != checksum or len(body) % 8 or len(body) < 24 * len(stats):
        put_aside(path_of(place), "its checksum does not match")
        return None
    # The table has 3 columns: the 2 of `stats`, and the number of offsets. See `_write_index`.
    table, offsets = np.split(np.frombuffer(body, "<i8"), [stats.size + len(stats)])
    table = table.reshape(-1, 3)
    counts = table[:, 2]
    if not np.array_equal(table[:, :2], stats) or counts.min() < 1 or counts.sum() != len(offsets):
        return None
    kept = np.split(offsets, np.cumsum(counts[:-1]))
    # An index that came with the data is as untrusted as these.
    fit = (
        found[0] == 0 and found[-1] == size and (np.diff(found) >= HEAD + FOOT).all()
        for found, size in zip(kept, stats[:, 0], strict=True)
    )
    return kept if all(fit) else None


def _write_index(place: str, stats: np.ndarray, offsets: Sequence[np.ndarray]) -> bool:
    """Writes the index atomically; returns whether it could be written.

    The format, all little-endian, is: size, time and number of offsets of each file, int64[files,
    3]; the offsets of all files, int64[...]; the masked CRC-32C of everything before it.
    """
    table = np.column_stack([stats, [len(array) for array in offsets]])
    body = np.concatenate([table.ravel(), *offsets]).astype("<i8").tobytes()
    # Several processes may write the same index at once, so each has a temporary file of its own.
    temporary = f"{place}.{uuid.uuid4().hex}"
    try:
        tf.io.gfile.makedirs(os.path.dirname(place))
        _remove_old(place)
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(body + masked_crc(body))
        tf.io.gfile.rename(temporary, place, overwrite=True)
    except (tf.errors.OpError, OSError, ValueError):  # the last for a name that is not UTF-8
        return False
    return True


def _remove_old(place: str) -> None:
    """Removes the temporary files of writers that were killed; those of others are younger."""
    with contextlib.suppress(tf.errors.OpError):  # another process may have removed one already
        for path in tf.io.gfile.glob(f"{place}.{'?' * 32}"):
            if time.time() - tf.io.gfile.stat(path).mtime_nsec / 1e9 > _ABANDONED:
                tf.io.gfile.remove(path)
