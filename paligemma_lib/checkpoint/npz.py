"""Reads and writes the reference's `.npz` files: zip files with one `.npy` array per parameter.

    with NpzReader("paligemma-3b-pt-224.f16.npz") as file:
        file.shapes["img/head/bias"], file.dtypes["img/head/bias"]
        rows = file.read("llm/layers/mlp/linear", slice(0, 1))

Members have names such as `params/img/head/bias.npy` (`params/` may be absent). bfloat16 is stored
as a void type of 2 bytes. Nothing is unpickled. Every size must match the file before memory
is allocated. Uncompressed arrays, the usual case, are read at their offset; only `verify`, which
takes longer, compares their checksums. A compressed array's is compared when its last row is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

import numpy as np

from paligemma_lib.checkpoint.arrays import (
    DTYPES,
    THREADS,
    as_bytes,
    open_binary,
    read_at,
    read_next,
    row_range,
)

_PREFIX = "params/"
_MAX_MEMBERS = 4096
_MAX_HEADER = 10_000  # bytes, NumPy's own limit
_OF_ZIP_FILES = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError)


@dataclasses.dataclass(frozen=True)
class _Member:
    entry: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype
    header_size: int

    @property
    def is_compressed(self) -> bool:
        return self.entry.compress_type != zipfile.ZIP_STORED


class NpzReader:
    """An open `.npz` file, used as a context manager.

    Attributes:
      shapes: parameter name -> shape.
      dtypes: parameter name -> NumPy dtype; only arrays with a dtype in DTYPES can be read.
      is_compressed: whether any array is compressed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the file and reads the headers of its arrays.

        Args:
          path: a local file, or a URL that fsspec opens, such as `gs://bucket/file`.

        Raises:
          FileNotFoundError: the file does not exist.
          ValueError: the file is not a complete `.npz` file.
          ImportError: fsspec, or a package that it needs for this kind of URL, is not installed.
        """
        self.path = os.fspath(path)
        self._current: tuple[str, BinaryIO] | None = None  # the compressed array being read
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(_open(self.path))
            with _damage_reported(self.path):
                self._archive = zipfile.ZipFile(self._file)
                self._members = _read_members(self._archive)
            self._threads = stack.enter_context(ThreadPoolExecutor(THREADS, "npz"))
            self._stack = stack.pop_all()
        self.shapes = {name: member.shape for name, member in self._members.items()}
        self.dtypes = {name: member.dtype for name, member in self._members.items()}
        self.is_compressed = any(member.is_compressed for member in self._members.values())

    def __enter__(self) -> NpzReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(
        self, name: str, rows: slice | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns `parameter[rows]` and reads no other rows, if the array is not compressed.

        Args:
          name: a name in `shapes`.
          rows: a slice of axis 0, without a step; None: all rows. Read compressed rows in order.
          out: a contiguous array to read into; None: a new array.

        Raises:
          ValueError: the file is damaged, or the dtype is not in DTYPES.
        """
        member = self._members[name]
        if member.dtype not in DTYPES.values():
            raise ValueError(
                f"{self.path}: {name} has dtype {member.dtype}, which is never read; expected "
                f"{', '.join(DTYPES)}"
            )
        first, last = row_range(rows, member.shape[0])
        if out is None:
            out = np.empty((last - first, *member.shape[1:]), member.dtype)
        row_size = math.prod(member.shape[1:]) * member.dtype.itemsize
        with _damage_reported(f"{self.path}, {name}"):
            stream, start = self._data(name)
            start += first * row_size
            if not member.is_compressed:
                read_at(stream, start, out, self._threads)
                return out
            stream.seek(start)
            read_next(stream, as_bytes(out))
            if last == member.shape[0]:
                stream.read(1)  # zipfile compares the checksum at the end of a member
        return out

    def verify(self) -> str:
        """Compares the checksums of all arrays and returns a sentence that says so.

        Raises:
          ValueError: a checksum is wrong.
        """
        for name, member in self._members.items():
            with _damage_reported(f"{self.path}, {name}"):
                stream = self._stack.enter_context(self._archive.open(member.entry))
                while stream.read(1 << 20):
                    pass
        kind = "compressed arrays" if self.is_compressed else "arrays"
        return f"{len(self.shapes)} {kind}, all checksums match"

    def _data(self, name: str) -> tuple[BinaryIO, int]:
        """Returns an open file and the offset in it of the array's first value."""
        member = self._members[name]
        if not member.is_compressed:
            # The values follow the member's local header: 30 bytes, whose last 4 are the lengths of
            # a name and an extra field; then these two fields; then the `.npy` header.
            self._file.seek(member.entry.header_offset + 26)
            sizes = struct.unpack("<HH", self._file.read(4))
            return self._file, member.entry.header_offset + 30 + sum(sizes) + member.header_size
        # Keep the last compressed stream: later rows then need no second pass from its start.
        if self._current is None or self._current[0] != name:
            stream = self._stack.enter_context(self._archive.open(member.entry))
            self._current = name, cast(BinaryIO, stream)
        return self._current[1], member.header_size


def write_npz(
    file: BinaryIO,
    arrays: Iterable[tuple[str, tuple[int, ...], np.dtype, Iterable[np.ndarray]]],
) -> None:
    """Writes arrays one after the other, uncompressed, as the reference does.

    Args:
      file: the open file to write to.
      arrays: name, shape, dtype, and the values in order, in blocks of any number of rows.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, shape, dtype, blocks in arrays:
            # zipfile learns the size at the end, and without zip64 refuses members above 2 GiB.
            entry = zipfile.ZipInfo(f"{_PREFIX}{name}.npy")
            with archive.open(entry, "w", force_zip64=True) as out:
                descr = np.lib.format.dtype_to_descr(dtype)
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(out, header)
                for rows in blocks:
                    out.write(as_bytes(np.ascontiguousarray(rows)))


def _open(path: str) -> BinaryIO:
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder, expected an .npz file")
    if "://" not in path and not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist, expected an .npz file")
    return open_binary(path)


def _read_members(archive: zipfile.ZipFile) -> dict[str, _Member]:
    entries = archive.infolist()
    if len(entries) > _MAX_MEMBERS:
        raise zipfile.BadZipFile(f"{len(entries):,} members, expected at most {_MAX_MEMBERS:,}")
    members: dict[str, _Member] = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy").removeprefix(_PREFIX)
        if not entry.filename.endswith(".npy"):
            raise zipfile.BadZipFile(f"{entry.filename!r} is not a .npy array")
        if name in members:
            raise zipfile.BadZipFile(f"{name} is stored twice")
        members[name] = _read_header(archive, entry)
    return members


def _read_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Member:
    name = entry.filename
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{name} has a compression method that NumPy never uses")
    if entry.flag_bits & 1:
        raise zipfile.BadZipFile(f"{name} is encrypted")
    with archive.open(entry) as stream:
        head = io.BytesIO(stream.read(_MAX_HEADER))
    version = np.lib.format.read_magic(head)
    # This only parses a header and unpickles nothing. `read` accepts only the dtypes in DTYPES.
    if version != (1, 0):
        raise zipfile.BadZipFile(f"{name} has a header of version {version}, expected (1, 0)")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(head)
    # NumPy has no bfloat16: it stores that of ml_dtypes as an opaque type of 2 bytes, "<V2".
    if dtype == np.dtype("V2"):
        dtype = DTYPES["bfloat16"]
    member = _Member(entry, shape, dtype, head.tell())
    if dtype in DTYPES.values():
        if fortran_order:
            raise zipfile.BadZipFile(
                f"{name} is in Fortran order: save it with np.ascontiguousarray"
            )
        # An untrusted header may claim any shape, so it must match the number of bytes in the file
        # before memory is allocated for it.
        size = member.header_size + math.prod(shape) * dtype.itemsize
        stored = size if member.is_compressed else entry.compress_size
        if min(shape, default=0) < 0 or not size == entry.file_size == stored:
            raise zipfile.BadZipFile(
                f"{name} has {entry.file_size:,} bytes, but its shape {list(shape)} needs {size:,}"
            )
    return member


@contextlib.contextmanager
def _damage_reported(source: str) -> Iterator[None]:
    try:
        yield
    except (*_OF_ZIP_FILES, OverflowError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # a fault of the disk or network; EINVAL means an offset outside the file
        raise ValueError(
            f"{source}: not a complete .npz file of arrays ({error}). If the download was "
            "interrupted, download it again"
        ) from error
