"""Reads which arrays are in an `.npz` file, and checks every size before anything is allocated.

with damage_told(path):
    members = read_members(open_archive(file), file)
members["img/head/bias"].shape, members["img/head/bias"].start
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import math
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from paligemma_lib.checkpoint.arrays import DTYPES
from paligemma_lib.checkpoint.matching import listed
from paligemma_lib.checkpoint.npz_archive import content_starts, foreign
from paligemma_lib.runtime.visible_text import visible

PREFIX = "params/"
_MODEL = ("img/", "llm/")
_MAX_HEADER = 10_000  # bytes, NumPy's own limit
_MAX_AXES = 32

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Member:
    """An array in the file.

    Attributes:
      entry: its entry in the table of contents.
      shape: its shape.
      dtype: its NumPy dtype; only those in DTYPES can be read.
      header_size: bytes of the `.npy` header before the values.
      start: offset in the file of the `.npy` header, as it is stored.
    """

    entry: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype
    header_size: int
    start: int

    @property
    def is_compressed(self) -> bool:
        """Whether its values cannot be read at an offset."""
        return self.entry.compress_type != zipfile.ZIP_STORED


def read_members(archive: zipfile.ZipFile, file: BinaryIO) -> dict[str, Member]:
    """Returns the arrays by their names, without the prefix `params/`.

    Of a training state, which has other trees beside `params/`, these are left out.

    Raises:
      ValueError: a member is no array, its sizes contradict each other, or as in `content_starts`.
    """
    starts = content_starts(archive, file)
    entries = archive.infolist()
    has_prefix = any(entry.filename.startswith(PREFIX) for entry in entries)
    members: dict[str, Member] = {}
    names: set[str] = set()
    others: set[str] = set()
    for entry, start in zip(entries, starts, strict=True):
        shown = visible(entry.filename)[:200]
        if not entry.filename.endswith(".npy"):
            raise ValueError(f"{shown!r} is not a .npy array{_of_torch(entry.filename)}")
        name = entry.filename.removesuffix(".npy").removeprefix(PREFIX)
        if name in names:
            raise ValueError(f"{visible(name)[:200]} is stored twice")
        names.add(name)
        if has_prefix and not entry.filename.startswith((PREFIX, *_MODEL)):
            others.add(entry.filename.partition("/")[0].removesuffix(".npy"))
            continue
        with _place_told(shown):
            members[name] = _read_member(archive, entry, start)
    if others:
        _log.info("left out what is no parameter: %s", listed(sorted(others)))
    return members


@contextlib.contextmanager
def _place_told(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error


def _read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, start: int) -> Member:
    """Returns a member after a check of its header; the caller adds its name to errors."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("has a compression method that NumPy never uses")
    if entry.flag_bits & 1:
        raise ValueError("is encrypted")
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise ValueError(f"has {entry.compress_size:,} bytes, not {entry.file_size:,}")
    # This only parses a header and unpickles nothing. Only the dtypes in DTYPES are read later.
    with foreign():
        with archive.open(entry) as stream:
            head = io.BytesIO(stream.read(_MAX_HEADER))
        version = np.lib.format.read_magic(head)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(head)
    if version != (1, 0):
        raise ValueError(f"has a header of version {version}, expected (1, 0)")
    # NumPy has no bfloat16: it stores that of ml_dtypes as an opaque type of 2 bytes, "<V2".
    if dtype == np.dtype("V2"):
        dtype = DTYPES["bfloat16"]
    header_size, size = head.tell(), entry.file_size
    # An untrusted header may claim any shape, so it must match the number of bytes in the file
    # before memory is allocated for it, or a model is derived from it. No parameter has no values.
    if len(shape) > _MAX_AXES or not all(type(n) is int and 0 <= n <= size for n in shape):
        raise ValueError(f"has the shape {_short(shape)}, but {size:,} bytes")
    if dtype in DTYPES.values():
        if fortran_order:
            raise ValueError("is in Fortran order: save it with np.ascontiguousarray")
        if 0 in shape:
            raise ValueError(f"has the shape {_short(shape)}, which holds no values")
    needed = header_size + math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and needed != size:
        raise ValueError(f"has {size:,} bytes, but its shape {_short(shape)} needs {needed:,}")
    return Member(entry, shape, dtype, header_size, start)


def _short(shape: tuple[int, ...]) -> str:
    listed_sizes = str([n if abs(n) < 1 << 80 else "..." for n in shape[:8]])
    return listed_sizes if len(shape) <= 8 else f"{listed_sizes[:-1]}, ...]"


def _of_torch(name: str) -> str:
    if name.endswith(("/data.pkl", "/version", "/byteorder")):
        return ": it is PyTorch's, a pickle, which can run any program and is not read"
    return ""
