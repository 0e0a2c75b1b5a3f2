"""Where the records of TFRecord files start: found once, and kept.

    offsets, problems = offsets_of(["data-train.tfrecord-00000-of-00002", ...])

A TFRecord file is a chain of records: length (uint64), its CRC, data, the data's CRC; see
tensorflow.org/tutorials/load_data/tfrecord. Only the 12-byte heads are read. What was found is kept
beside the data (or in the user's cache, if that is read-only) together with the files' sizes and
times, and made anew when those change.
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

from paligemma_lib.data.files import in_parallel, join, open_file, read_whole, stat
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.retries import retry

HEAD, FOOT = 12, 4  # bytes: length and its CRC; the data's CRC

_MAX_RECORD_BYTES = 1 << 30
_MAX_INDEX_BYTES = 1 << 32


def offsets_of(paths: Sequence[str]) -> tuple[list[np.ndarray], list[str]]:
    """Per file int64[records + 1], where each record starts and the last one ends, and what is
    wrong with it: "", or why there are no more.

    Raises FileNotFoundError if there is no such file.
    """
    stats = np.array([stat(path) for path in paths], np.int64)
    places = _index_places(paths)
    for place in places:
        kept = _read_index(place, stats)
        if kept is not None:
            return kept, [""] * len(kept)
    scanned = in_parallel(_scan, zip(paths, stats[:, 0], strict=True), remote=is_remote(paths[0]))
    offsets = [found for found, _ in scanned]
    problems = [problem for _, problem in scanned]
    for place in () if any(problems) else places:
        if _write_index(place, stats, offsets):
            break
    return offsets, problems


def _scan(path_and_size: tuple[str, int]) -> tuple[np.ndarray, str]:
    """Walks through a file from head to head."""
    return retry(lambda: _heads(*path_and_size), path_and_size[0])


def _heads(path: str, size: int) -> tuple[np.ndarray, str]:
    """Where each record starts, and where the last one ends; why there are no more, if so."""
    offsets, problem = [0], ""
    with open_file(path) as file:
        while not problem and (start := offsets[-1]) < size:
            file.seek(start)
            head = file.read(HEAD)
            length = int.from_bytes(head[:8], "little")
            end = start + HEAD + length + FOOT
            if len(head) == HEAD and masked_crc(head[:8]) != head[8:]:
                problem = (
                    f"{path} is no TFRecord file, or damaged at byte {start}: the checksum of "
                    f"record {len(offsets) - 1}'s length does not match. Compressed files cannot "
                    "be read by number: write them without compression"
                )
            elif end > size or length > _MAX_RECORD_BYTES:
                problem = (
                    f"{path} is cut off: record {len(offsets) - 1} at byte {start} needs "
                    f"{end - start} bytes, the file ends at {size}. Copy or build the file again"
                )
            else:
                offsets.append(end)
    return np.array(offsets, np.int64), problem


def masked_crc(data: bytes) -> bytes:
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
    body, checksum = data[:-FOOT], data[-FOOT:]
    if masked_crc(body) != checksum:
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
            file.write(body + masked_crc(body))
        tf.io.gfile.rename(temporary, place, overwrite=True)
    except tf.errors.OpError:
        return False
    return True
