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
import json
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
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
from paligemma_lib.checkpoint.finite import NotFinite, count_not_finite
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.checkpoint.npz_archive import damage_told, foreign, open_archive
from paligemma_lib.checkpoint.npz_members import PREFIX, read_members

_MAX_COMMENT = 65_535  # bytes, by the zip format


class NpzReader:
    """An open `.npz` file, used as a context manager.

    Attributes:
      shapes: parameter name -> shape.
      dtypes: parameter name -> NumPy dtype; only arrays with a dtype in DTYPES can be read.
      is_compressed: whether any array is compressed.
      metadata: texts that `write_npz` kept beside the arrays, by name.
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
            with damage_told(self.path):
                self._archive = open_archive(self._file)
                self._members = read_members(self._archive, self._file)
            self._threads = stack.enter_context(ThreadPoolExecutor(THREADS, "npz"))
            self._stack = stack.pop_all()
        self.shapes = {name: member.shape for name, member in self._members.items()}
        self.dtypes = {name: member.dtype for name, member in self._members.items()}
        self.metadata = _metadata(self._archive.comment)
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
        if not member.shape:
            raise ValueError(f"{self.path}: {name} is a single value, expected an array with rows")
        first, last = row_range(rows, member.shape[0])
        if out is None:
            out = np.empty((last - first, *member.shape[1:]), member.dtype)
        row_size = math.prod(member.shape[1:]) * member.dtype.itemsize
        with damage_told(f"{self.path}, {name}"), foreign():
            start = member.start + member.header_size
            if not member.is_compressed:
                read_at(self._file, start + first * row_size, out, self._threads)
                return out
            stream = self._compressed(name)
            stream.seek(member.header_size + first * row_size)
            read_next(stream, as_bytes(out))
            if last == member.shape[0]:
                stream.read(1)  # zipfile compares the checksum at the end of a member
        return out

    def verify(self) -> str:
        """Compares the checksums of all arrays, looks at all values, and returns a sentence so.

        Raises:
          ValueError: a checksum is wrong, or values are NaN or infinite; then all parameters with
            such values are named.
        """
        found = {}
        for name in self._members:
            bad, total = self._verified(name)
            if bad:
                found[name] = bad, total
        if found:
            raise NotFinite(self.path, found)
        kind = "compressed arrays" if self.is_compressed else "arrays"
        return f"{len(self.shapes)} {kind}, all checksums match and all values are finite"

    def _verified(self, name: str) -> tuple[int, int]:
        """Returns how many values of an array are not finite, and how many it has."""
        member = self._members[name]
        bad = 0
        with damage_told(f"{self.path}, {name}"), contextlib.ExitStack() as stack:
            with foreign():
                stream = stack.enter_context(self._archive.open(member.entry))
                stream.read(member.header_size)
            while True:
                with foreign():
                    data = stream.read(1 << 20)
                if not data:
                    return bad, math.prod(member.shape)
                if member.dtype in DTYPES.values():
                    bad += count_not_finite(np.frombuffer(data, member.dtype))

    def _compressed(self, name: str) -> BinaryIO:
        """Returns the stream of a compressed array's `.npy` file."""
        # Keep the last compressed stream: later rows then need no second pass from its start.
        if self._current is None or self._current[0] != name:
            stream = self._stack.enter_context(self._archive.open(self._members[name].entry))
            self._current = name, cast(BinaryIO, stream)
        return self._current[1]


def write_npz(
    file: BinaryIO,
    arrays: Iterable[tuple[str, tuple[int, ...], np.dtype, Iterable[np.ndarray]]],
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes arrays one after the other, uncompressed, as the reference does.

    Args:
      file: the open file to write to.
      arrays: name, shape, dtype, and the values in order, in blocks of any number of rows.
      metadata: texts to be kept in the zip file's comment, by name; NumPy does not look at it.

    Raises:
      ValueError: the texts are longer than a comment may be, 65,535 bytes.
    """
    comment = json.dumps(dict(metadata)).encode() if metadata else b""
    if len(comment) > _MAX_COMMENT:
        raise ValueError(f"texts of {len(comment):,} bytes do not fit into an .npz file's comment")
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = comment
        for name, shape, dtype, blocks in arrays:
            # zipfile learns the size at the end, and without zip64 refuses members above 2 GiB.
            entry = zipfile.ZipInfo(f"{PREFIX}{name}.npy")
            with archive.open(entry, "w", force_zip64=True) as out:
                descr = np.lib.format.dtype_to_descr(dtype)
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(out, header)
                for rows in blocks:
                    out.write(as_bytes(np.ascontiguousarray(rows)))


def _metadata(comment: bytes) -> dict[str, str]:
    """Returns what a comment of ours holds; {} of anybody else's."""
    try:
        found = json_object(comment)
    except ValueError:
        return {}
    return {name: text for name, text in found.items() if isinstance(text, str)}


def _open(path: str) -> BinaryIO:
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder, expected an .npz file")
    if "://" not in path and not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist, expected an .npz file")
    return open_binary(path)
