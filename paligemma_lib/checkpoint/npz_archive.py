"""Opens a zip file of arrays that is not trusted, and finds where each member's content begins.

with damage_told(path):
    archive = open_archive(file)
    starts = content_starts(archive, file)
with foreign():
    data = archive.open(entry).read(100)

`foreign` makes one kind of error of all that zipfile, zlib and NumPy raise.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from paligemma_lib.runtime.stand_ins import stand_in
from paligemma_lib.runtime.visible_text import visible

_MAX_MEMBERS = 4096
_MAX_DIRECTORY = 4 << 20  # bytes of the zip file's table of contents


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Opens a zip file, whose table of contents must be small.

    Raises:
      ValueError: it is not a zip file; the message says what it is, where that is known.
    """
    bounded = _BoundedReads(file)
    try:
        with foreign():
            archive = zipfile.ZipFile(cast(BinaryIO, bounded))
    except ValueError as error:
        file.seek(0)
        if told := _what_else(file.read(64)):
            raise ValueError(told) from error
        raise
    bounded.limit = None
    return archive


def content_starts(archive: zipfile.ZipFile, file: BinaryIO) -> list[int]:
    """Returns the offset of each member's content, after a check that none lies over another.

    Raises:
      ValueError: there are too many members, one is not where the table of contents says, is named
        differently in parts of the file, or lies over another one.
    """
    entries = archive.infolist()
    if len(entries) > _MAX_MEMBERS:
        raise ValueError(f"{len(entries):,} members, expected at most {_MAX_MEMBERS:,}")
    starts, places = [], []
    for entry in entries:
        # The content follows the member's local header: 30 bytes, whose last 4 are the lengths of a
        # name and an extra field; then these two fields.
        with foreign():
            file.seek(entry.header_offset)
            header = file.read(30)
        shown = visible(entry.filename)[:200]
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise ValueError(f"{shown} begins at byte {entry.header_offset:,}, where no member is")
        if entry.filename != entry.orig_filename:
            raise ValueError(f"{shown} has another name in part of the file")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
        starts.append(start)
        places.append((entry.header_offset, start + entry.compress_size, shown))
    places.sort()
    for (_, stop, name), (start, _, other) in itertools.pairwise(places):
        if stop > start:
            raise ValueError(f"{name} and {other} lie over each other")
    if places and places[-1][1] > archive.start_dir:
        raise ValueError(f"{places[-1][2]} ends after the table of contents begins")
    return starts


@contextlib.contextmanager
def foreign() -> Iterator[None]:
    """Turns whatever a parser raises into ValueError; faults of disk and network stay OSError."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:  # which means an offset outside the file
            raise
        raise ValueError(str(error)) from error
    except Exception as error:
        told = visible(str(error))[:300]
        raise ValueError(told or type(error).__name__) from error


@contextlib.contextmanager
def damage_told(source: str) -> Iterator[None]:
    """Says in a ValueError which file is damaged, and what to do."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{source}: not a complete .npz file of arrays ({error}). If the download was "
            "interrupted, download it again"
        ) from error


class _BoundedReads:
    """A file of which no more than `limit` bytes are read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.limit: int | None = _MAX_DIRECTORY

    def read(self, count: int = -1) -> bytes:
        if self.limit is None:
            return self._file.read(count)
        if count > self.limit:
            raise ValueError(f"a table of contents of {count:,} bytes")
        # Where a comment may end the file, zipfile asks for its rest (-1): at most 65,557 bytes.
        return self._file.read(count if count >= 0 else 1 << 17)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _what_else(head: bytes) -> str | None:
    if head.startswith(b"GGUF"):
        return "it is a GGUF file of llama.cpp, which is not read: take the model's safetensors"
    if head[8:10] == b'{"':
        return "it is a safetensors file: give the folder that holds it, with its config.json"
    return stand_in(head)
