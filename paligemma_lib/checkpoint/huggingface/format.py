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
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paligemma_lib.checkpoint.arrays import DTYPES
from paligemma_lib.runtime.regular_files import open_regular

CODES = {"F32": DTYPES["float32"], "F16": DTYPES["float16"], "BF16": DTYPES["bfloat16"]}

_CODE_OF = {dtype: code for code, dtype in CODES.items()}
_MAX_HEADER = 16 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor in a file: its dtype code, such as "BF16", its shape, and its offset in bytes."""

    code: str
    shape: tuple[int, ...]
    start: int

    @property
    def dtype(self) -> np.dtype | None:
        """NumPy dtype, or None if parameters cannot have the file's dtype."""
        return CODES.get(self.code)


def read_header(path: Path) -> dict[str, Entry]:
    """Returns the tensors of a file by name, after a check of all sizes against the file's.

    Raises:
      ValueError: the file is not a complete safetensors file.
    """
    size = path.stat().st_size
    try:
        with open_regular(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not length <= min(size - 8, _MAX_HEADER):
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        # Offsets in the header count from the first byte after it.
        first, end, entries = 8 + length, 0, {}
        for name, fields in header.items():
            begin, stop = fields["data_offsets"]
            shape, code = tuple(fields["shape"]), str(fields["dtype"])
            if not all(type(n) is int and n >= 0 for n in (begin, stop, *shape)):
                raise ValueError(f"{name} has shape {list(shape)} at bytes {begin} to {stop}")
            num_bytes = math.prod(shape) * CODES[code].itemsize if code in CODES else stop - begin
            if stop - begin != num_bytes:
                raise ValueError(f"{name} of shape {list(shape)} has {stop - begin:,} bytes")
            end = max(end, stop)
            entries[name] = Entry(code, shape, first + begin)
        if first + end != size:
            raise ValueError(f"its tensors end at byte {first + end:,}")
    except (
        struct.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError(
            f"{path}: {size:,} bytes that are not a complete safetensors file ({error}). If the "
            "download was interrupted, download it again."
        ) from error
    return entries


def header_bytes(tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> bytes:
    """Returns the bytes before the values, for tensors given as name -> (shape, dtype)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, dtype) in tensors.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _CODE_OF[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    # Spaces after the JSON make the values start at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
