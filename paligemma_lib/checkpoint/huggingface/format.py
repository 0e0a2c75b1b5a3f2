"""Reads and writes headers of safetensors files.

entries = read_header(path)                      # {"lm_head.weight": Entry(...), ...}
read_at(file, entries["lm_head.weight"].start, out, threads)
file.write(header_bytes({"lm_head.weight": (shape, dtype)}))      # then the values, in this order

A file is the header's length (uint64), the header as JSON, and the values, all little-endian. The
safetensors package needs all tensors of a file in memory to write it, and is slow at reading some
rows of a large tensor. Source: the description of the format in its repository.
"""

import dataclasses
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, TypeGuard, cast

import numpy as np

from paligemma_lib.checkpoint.arrays import DTYPES
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.runtime.regular_files import open_regular, read_up_to
from paligemma_lib.runtime.stand_ins import stand_in
from paligemma_lib.runtime.visible_text import visible

CODES = {"F32": DTYPES["float32"], "F16": DTYPES["float16"], "BF16": DTYPES["bfloat16"]}

_CODE_OF = {dtype: code for code, dtype in CODES.items()}
_BYTES = {code: dtype.itemsize for code, dtype in CODES.items()} | {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16"), 2),
    **dict.fromkeys(("U32", "I32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
_MAX_HEADER = 16 << 20  # bytes
_MAX_AXES = 32


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor in a file: its dtype code, such as "BF16", its shape, its offset and its bytes."""

    code: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int

    @property
    def dtype(self) -> np.dtype | None:
        """NumPy dtype, or None if parameters cannot have the file's dtype."""
        return CODES.get(self.code)


def read_header(path: Path) -> dict[str, Entry]:
    """Returns the tensors of a file by name, after a check of all sizes against the file's.

    As the format asks, the tensors follow one another without a gap and fill the file.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is not a complete safetensors file.
    """
    return _parsed(path)[0]


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the texts that a file holds beside its tensors, by name, but not "format".

    Raises:
      FileNotFoundError, ValueError: as in `read_header`, or they are no texts.
    """
    found = _parsed(path)[1]
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise ValueError(f"{path}: __metadata__ is not an object of texts")
    return {name: text for name, text in found.items() if name != "format"}


def _parsed(path: Path) -> tuple[dict[str, Entry], Any]:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = read_up_to(cast(BinaryIO, file), 64)
        file.seek(8)
        length = int.from_bytes(head[:8], "little")
        bounded = len(head) > 8 and length <= min(size - 8, _MAX_HEADER)
        text = read_up_to(cast(BinaryIO, file), length) if bounded else b""
    try:
        if told := stand_in(head):
            raise ValueError(told)
        if not bounded:
            raise ValueError(f"a header of {length:,} bytes")
        header = json_object(text, unique=True)
        metadata = header.pop("__metadata__", None) or {}
        # Offsets in the header count from the first byte after it.
        entries = {name: _entry(name, fields, 8 + length) for name, fields in header.items()}
        _check_places(entries, 8 + length, size)
    except ValueError as error:
        raise ValueError(
            f"{path}: {size:,} bytes that are not a complete safetensors file ({error}). If the "
            "download was interrupted, download it again."
        ) from error
    return entries, metadata


def _entry(name: str, fields: Any, first: int) -> Entry:
    shown = visible(name)[:200]
    if not isinstance(fields, dict):
        raise ValueError(f"{shown} has no dtype, shape and data_offsets")
    shape, offsets, code = (fields.get(key) for key in ("shape", "data_offsets", "dtype"))
    if not isinstance(code, str) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise ValueError(f"{shown} has no dtype and data_offsets")
    if not _whole_numbers(shape) or len(shape) > _MAX_AXES:
        raise ValueError(f"{shown} has no shape of at most {_MAX_AXES} whole numbers")
    begin, stop = offsets
    num_bytes = math.prod(shape) * _BYTES[code] if code in _BYTES else stop - begin
    if stop - begin != num_bytes or stop < begin:
        raise ValueError(f"{shown} of shape {shape} and dtype {code} lies at {begin} to {stop}")
    return Entry(code, tuple(shape), first + begin, num_bytes)


def _check_places(entries: Mapping[str, Entry], first: int, size: int) -> None:
    end = first
    for name, entry in sorted(entries.items(), key=lambda each: (each[1].start, each[1].num_bytes)):
        if entry.start != end:
            raise ValueError(
                f"{visible(name)[:200]} begins at byte {entry.start:,}, where the tensor before it "
                f"ends at {end:,}"
            )
        end += entry.num_bytes
    if end != size:
        raise ValueError(f"its tensors end at byte {end:,}")


def _whole_numbers(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in values)


def header_bytes(
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Returns the bytes before the values.

    Args:
      tensors: name -> (shape, dtype), in the order of the values.
      metadata: texts to be kept in the file, by name.
    """
    header: dict[str, Any] = {"__metadata__": {**metadata, "format": "pt"}}
    end = 0
    for name, (shape, dtype) in tensors.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _CODE_OF[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    # Spaces after the JSON make the values start at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
