"""Opens and reads local files that may be anything: only regular files, and only so many bytes.

    with open_regular("image.jpg") as file: ...
    data = read_bounded(path_of("gs://bucket/tokenizer.model"), 64 << 20)

To open a named pipe blocks until somebody writes into it, and /dev/zero never ends. So a path is
opened without blocking, and everything but a regular file is refused.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

from paligemma_lib.runtime.atomic import is_remote, path_of

_PIECE = 64 << 20  # bytes read at a time: Python allocates them before it reads
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Returns the status of a regular local file, links followed.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is a folder, a named pipe, a socket or a device.
      OSError: it cannot be looked at, such as a link to itself.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    _check(path, found)
    return found


def open_regular(path: str | os.PathLike[str]) -> io.FileIO:
    """Opens a regular local file for reading, without a buffer; never waits for anybody.

    Raises:
      FileNotFoundError, ValueError, OSError: as `check_regular`, or the file may not be read.
    """
    # A device may do something when it is opened, and the message for a socket would not say what
    # it is. So the path is looked at first, and the open file again: they may differ by then.
    check_regular(path)
    file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115, for the caller
    try:
        _check(path, os.fstat(file.fileno()))
    except ValueError:
        file.close()
        raise
    return file


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """Reads a whole file, local or remote; of a local one that grows, what it had when opened.

    Args:
      path: a local path, or a remote one such as gs://bucket/file.
      limit: largest number of bytes.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is larger than `limit` bytes, or no regular file.
      OSError: it cannot be read.
    """
    remote = is_remote(path)
    opened = path_of(path).open("rb") if remote else open_regular(path)
    with cast(BinaryIO, opened) as file:
        if remote:
            data = file.read(limit + 1)  # one more byte tells that the file is too large
            size = len(data)
        else:
            size = os.fstat(file.fileno()).st_size
            data = read_up_to(file, size) if size <= limit else b""
    if size > limit:
        raise ValueError(f"{path} is larger than the limit of {limit >> 20} MiB")
    return data


def read_up_to(file: BinaryIO, count: int) -> bytes:
    """Reads so many bytes of a file, fewer at its end; a wrong count takes no memory."""
    parts, left = [], count
    while left > 0 and (part := file.read(min(left, _PIECE))):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check(path: str | os.PathLike[str], found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise ValueError(f"{Path(path)} is {kind}, expected a regular file")
