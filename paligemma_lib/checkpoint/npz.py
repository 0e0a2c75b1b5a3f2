"""The `.npz` format of the reference: a zip file of `.npy` arrays, one for each parameter.

    with NpzReader("paligemma-3b-pt-224.f16.npz") as file:
        file.shapes["img/head/bias"], file.dtypes["img/head/bias"]
        rows = file.read("llm/layers/mlp/linear", slice(0, 1))

Members are named `params/img/head/bias.npy` and so on (the `params/` may be absent); bfloat16 is a
void type of 2 bytes. Nothing is unpickled, and every size must agree with the file before anything
is allocated. Arrays stored as they are, the usual case, are read at their place in the file and
their checksums left to `verify`, which takes longer; those of compressed ones are compared.
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
    """An open file; a context manager.

    Attributes:
      shapes: parameter name -> shape.
      dtypes: parameter name -> NumPy dtype; only those in DTYPES can be read.
      is_compressed: whether any array is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the file and reads what its arrays are.

        Args:
          path: a local file, or a URL that fsspec opens, such as `gs://bucket/file`.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: it is no whole `.npz` file.
          ImportError: fsspec lacks what the URL needs.
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
        """Returns `parameter[rows]`, reading no more; a compressed array is best read in order.

        Args:
          name: a name in `shapes`.
          rows: a slice of axis 0, without a step; None: all.
          out: where to read to, contiguous; None: new memory.

        Raises:
          ValueError: the file is damaged, or the type is not in DTYPES.
        """
        member = self._members[name]
        if member.dtype not in DTYPES.values():
            raise ValueError(
                f"{self.path}: {name} is {member.dtype}, which is never read; expected "
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
                stream.read(1)  # at the end, the checksum is compared
        return out

    def verify(self) -> str:
        """Compares the checksums of all arrays; says so.

        Raises:
          ValueError: one is wrong.
        """
        for name, member in self._members.items():
            with _damage_reported(f"{self.path}, {name}"):
                stream = self._stack.enter_context(self._archive.open(member.entry))
                while stream.read(1 << 20):
                    pass
        kind = "compressed arrays" if self.is_compressed else "arrays"
        return f"{len(self.shapes)} {kind}, all checksums are right"

    def _data(self, name: str) -> tuple[BinaryIO, int]:
        """A file and where in it the array's values begin."""
        member = self._members[name]
        if not member.is_compressed:
            # Behind the member's own header: 30 bytes, of which the last 4 are two sizes.
            self._file.seek(member.entry.header_offset + 26)
            sizes = struct.unpack("<HH", self._file.read(4))
            return self._file, member.entry.header_offset + 30 + sum(sizes) + member.header_size
        # One compressed array is open at a time; reading on in it needs no second start from its
        # beginning.
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
      file: where to.
      arrays: name, shape, dtype, and the values in order, in blocks of any number of rows.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, shape, dtype, blocks in arrays:
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
        raise FileNotFoundError(f"{path} is not there, expected an .npz file")
    return open_binary(path)


def _read_members(archive: zipfile.ZipFile) -> dict[str, _Member]:
    entries = archive.infolist()
    if len(entries) > _MAX_MEMBERS:
        raise zipfile.BadZipFile(
            f"it has {len(entries):,} members, at most {_MAX_MEMBERS:,} are read"
        )
    members: dict[str, _Member] = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy").removeprefix(_PREFIX)
        if not entry.filename.endswith(".npy"):
            raise zipfile.BadZipFile(f"{entry.filename!r} in it is no .npy array")
        if name in members:
            raise zipfile.BadZipFile(f"{name} is in it twice")
        members[name] = _read_header(archive, entry)
    return members


def _read_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Member:
    name = entry.filename
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{name} is compressed as NumPy never does")
    if entry.flag_bits & 1:
        raise zipfile.BadZipFile(f"{name} is encrypted")
    with archive.open(entry) as stream:
        head = io.BytesIO(stream.read(_MAX_HEADER))
    version = np.lib.format.read_magic(head)
    # No pickle: versions and types that could hold objects are refused here, and `read` takes three
    # types of floats.
    if version != (1, 0):
        raise zipfile.BadZipFile(f"{name} has a header of version {version}, expected (1, 0)")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(head)
    # NumPy has no bfloat16 and stores ml_dtypes' as two bytes without meaning.
    if dtype == np.dtype("V2"):
        dtype = DTYPES["bfloat16"]
    member = _Member(entry, shape, dtype, head.tell())
    if dtype in DTYPES.values():
        if fortran_order:
            raise zipfile.BadZipFile(f"{name} is in Fortran order: save np.ascontiguousarray of it")
        # A header may claim any shape. It is held against the bytes that are there before memory is
        # taken for it.
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
            raise  # of the disk or the network; EINVAL is of a place outside the file
        raise ValueError(
            f"{source}: not a whole .npz file of arrays ({error}). If its download broke off, "
            "fetch it again"
        ) from error
