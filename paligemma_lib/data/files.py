"""Reads parts of local and remote files (`gs://`, and `ram://` of TensorFlow).

    data, checksum = read_parts(path, offset, 5000, 4)
    everything = in_parallel(read, names, remote=is_remote(path))

Reads are retried after transient errors, and stalled reads are logged: see `runtime.retries`.
TensorFlow reads `gs://` in blocks of 64 MiB, even for a smaller part, unless the environment
variable GCS_READ_CACHE_DISABLED is 1 before TensorFlow is imported.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, TypeVar, cast

import tensorflow as tf

from paligemma_lib.data.storage_errors import storage_errors
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.regular_files import (
    check_regular,
    open_regular,
    read_bounded,
    read_up_to,
)
from paligemma_lib.runtime.retries import retry

_PARALLEL_REQUESTS = 32
_SLOW_SECONDS = 0.005  # for one read; a disk takes 0.1 ms, and one that spins 10 ms

T = TypeVar("T")
R = TypeVar("R")


def join(folder: str, name: str) -> str:
    """Returns the path of a name in a local or remote folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


def check_scheme(path: str) -> None:
    """Raises ValueError for a path of remote storage that cannot be read, such as s3://."""
    scheme = path.partition("://")[0]
    if is_remote(path) and scheme not in tf.io.gfile.get_registered_schemes():
        raise ValueError(
            f"{path}: cannot read from {scheme}://. Use a local path, gs:// or hf://datasets/"
        )


def glob_files(pattern: str) -> list[str]:
    """Returns the files, local or remote, that match a pattern with * and ?, sorted.

    Raises:
      FileNotFoundError: no file matches.
      ValueError: see `check_scheme`.
    """
    check_scheme(pattern)
    with storage_errors(pattern):
        found = sorted(retry(lambda: tf.io.gfile.glob(pattern), pattern))
    if not found:
        raise FileNotFoundError(f"no file matches {pattern}")
    return found


def stat(path: str) -> tuple[int, int]:
    """Returns the size in bytes and the modification time in ns (0 if the file system has none).

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is local and not a regular file, or see `check_scheme`.
    """
    if not is_remote(path):
        # TensorFlow's own `stat` rounds the times of local files to seconds.
        local = retry(lambda: check_regular(path), path)
        return local.st_size, local.st_mtime_ns
    check_scheme(path)
    with storage_errors(path):
        found = retry(lambda: tf.io.gfile.stat(path), path)
    return found.length, found.mtime_nsec


def is_folder(path: str) -> bool:
    """Returns whether a path names a folder, local or remote."""
    with storage_errors(path):
        return retry(lambda: tf.io.gfile.isdir(path), path)


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading; a local file without a buffer, and only a regular one."""
    if not is_remote(path):
        return cast(BinaryIO, open_regular(path))
    if path.startswith("gs://"):
        _warn_of_large_blocks()
    return tf.io.gfile.GFile(path, "rb")


def read_parts(path: str, offset: int, *lengths: int) -> list[bytes]:
    """Reads consecutive parts of the given lengths from `offset` on; shorter at the file's end."""

    def read() -> list[bytes]:
        # Each attempt opens the file again, so a retry does not depend on the state of a handle.
        with open_file(path) as file:
            file.seek(offset)
            return [read_up_to(file, length) for length in lengths]

    with storage_errors(path):
        return retry(read, path)


def read_whole(path: str, limit: int) -> bytes:
    """Reads all bytes of a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is larger than `limit` bytes, or local and no regular file.
    """
    if not is_remote(path):
        return retry(lambda: read_bounded(path, limit), path)
    check_scheme(path)

    def read() -> bytes:
        # One request for most files; to ask for the size first would be another. TensorFlow takes
        # memory for what there is only, and one more byte tells that the file is too large.
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read(limit + 1)

    with storage_errors(path):
        data = retry(read, path)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than the limit of {limit >> 20} MiB")
    return data


class SeekableFile(io.RawIOBase):
    """A remote file for readers that want one of Python's, such as pyarrow's.

    Each read is one request, or one for each 64 MiB. Raises FileNotFoundError, as `stat`.
    """

    def __init__(self, path: str) -> None:
        self._path, self._at = path, 0
        self._size, _ = stat(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        (data,) = read_parts(self._path, self._at, left if size < 0 else min(size, left))
        self._at += len(data)
        return data


def in_parallel(function: Callable[[T], R], items: Iterable[T], *, remote: bool) -> list[R]:
    """Applies a function that reads to each item and returns the results in order.

    If storage is slow, up to 32 calls run at the same time, since each waits for it. It is slow if
    it is remote, or if the first call takes longer than a fast disk, as on network file systems.
    """
    items = list(items)
    done: list[R] = []
    if items and not remote:
        start = time.monotonic()
        done = [function(items[0])]
        if time.monotonic() - start < _SLOW_SECONDS:
            return done + [function(item) for item in items[1:]]
    return done + list(_requests().map(function, items[len(done) :]))


# One pool for all callers, so that at most 32 requests of this process run at the same time.
@functools.cache
def _requests() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="paligemma-data")


@functools.cache
def _warn_of_large_blocks() -> None:
    if "GCS_READ_CACHE_DISABLED" not in os.environ:
        logging.getLogger(__name__).warning(
            "TensorFlow fetches 64 MiB for every part of a file that is read from gs://. Set the "
            "environment variable GCS_READ_CACHE_DISABLED=1 before the program starts."
        )
