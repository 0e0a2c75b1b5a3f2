"""Undoes weights that bitsandbytes has quantised: nf4 and fp4, scales nested or not, and int8.

    quantised = take_quantised(stored)           # removes what lies beside weights from the tensors
    values = quantised["...q_proj.weight"].undo(threads)      # dtype[out, in], as it undoes them

A weight in 4 bits is flattened; two indices to `quant_map` are in a byte, the first in its high
bits, and each block of values has its largest magnitude in `absmax`. With nested scales, `absmax`
holds indices to `nested_quant_map` instead, blocks of which have a scale and all an offset. A JSON
object says which it is. In int8 each output has the largest magnitude of its weights in `SCB`.
Source: `QuantState` and `dequantize_4bit` of bitsandbytes 0.50.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np

from paligemma_lib.checkpoint.arrays import DTYPES, read_at
from paligemma_lib.checkpoint.huggingface.format import CODES, Entry
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.runtime.visible_text import visible

METHOD = "bitsandbytes"  # in config.json

_STATE = re.compile(r"\.quant_state\.bitsandbytes__(nf4|fp4)$")
_TABLES = ("embed_tokens.weight", "lm_head.weight")
_NESTED = ("nested_absmax", "nested_quant_map")
_MAX_STATE = 1 << 16  # bytes of the JSON object
_MAX_BLOCK = 1 << 20
_STORED: dict[str, np.dtype] = {
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F32": np.dtype(np.float32),
}


@dataclasses.dataclass(frozen=True)
class QuantisedWeight:
    """A weight in a file, with what lies beside it.

    Attributes:
      shape: its outputs and inputs.
      dtype: dtype that it is undone to.
      parts: the tensors it is made of, by the end of their names; "" is the weight itself.
      block: values that share a scale in 4 bits, or 0 in int8.
      nested_block: scales that share one, or 0.
      nested_offset: what is added to each scale, if they are nested.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    parts: Mapping[str, Any]
    block: int = 0
    nested_block: int = 0
    nested_offset: float = 0.0

    def undo(self, threads: Executor) -> np.ndarray:
        """Returns dtype[out, in]; raises EOFError if a file is shorter than when it was opened."""
        parts = {end: _read(stored, threads) for end, stored in self.parts.items()}
        if not self.block:
            values = parts[""].astype(np.float32) * parts["SCB"].reshape(-1, 1)
            return (values * np.float32(1 / 127)).astype(self.dtype)
        scales = parts["absmax"].reshape(-1)
        if self.nested_block:
            scales = parts["nested_quant_map"][scales]
            scales = _times(scales, parts["nested_absmax"], self.nested_block)
            scales += np.float32(self.nested_offset)
        packed, levels = parts[""].reshape(-1), parts["quant_map"]
        # Both values of a byte at once, so that no index to a single value is in memory.
        pairs = np.stack([np.repeat(levels, 16), np.tile(levels, 16)], axis=1)
        values = pairs[packed].reshape(-1)[: math.prod(self.shape)]
        return _times(values, scales, self.block).astype(self.dtype).reshape(self.shape)


def take_quantised(stored: dict[str, Any], path: str) -> dict[str, QuantisedWeight]:
    """Takes quantised weights, and what lies beside them, from the tensors of a checkpoint.

    Args:
      stored: tensors by name, see `folder.Stored`. In place of a quantised weight stays a tensor
        with the shape and dtype that it is undone to; what lies beside it is removed.
      path: the checkpoint, in errors.

    Returns:
      The quantised weights by name.

    Raises:
      ValueError: what belongs to a weight is missing, or its sizes do not fit together.
    """
    found = {}
    for name in [name for name in stored if _STATE.search(name) or name.endswith(".SCB")]:
        weight = (
            _STATE.sub("", name) if _STATE.search(name) else name.removesuffix("SCB") + "weight"
        )
        try:
            if weight.endswith(_TABLES):
                raise ValueError("only weights of layers are read in 8 or 4 bits")
            take = _four_bits if _STATE.search(name) else _int8
            found[weight] = take(stored, name, weight)
        except (KeyError, ValueError, TypeError) as error:
            told = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{path}: {visible(weight)[:200]} is quantised by bitsandbytes, but cannot be "
                f"undone ({visible(str(told))[:200]}). Download it again, or take the model from "
                "which it was made"
            ) from error
    for name, each in found.items():
        code = next(code for code, dtype in CODES.items() if dtype == each.dtype)
        entry = dataclasses.replace(stored[name].entry, code=code, shape=each.shape)
        stored[name] = dataclasses.replace(stored[name], entry=entry)
    return found


def _four_bits(stored: dict[str, Any], name: str, weight: str) -> QuantisedWeight:
    state = stored.pop(name)
    if state.entry.code != "U8" or state.entry.num_bytes > _MAX_STATE:
        raise ValueError(f"a quant_state of {state.entry.num_bytes:,} bytes")
    state.file.seek(state.entry.start)
    fields = json_object(state.file.read(state.entry.num_bytes))
    shape = fields["shape"]
    if not isinstance(shape, list) or len(shape) != 2 or not all(map(_is_size, shape)):
        raise ValueError(f"a shape of {shape!r:.60}")
    count = math.prod(shape)
    block = _size(fields, "blocksize")
    scales = -(-count // block)
    parts = {"": _part(stored[weight], "U8", -(-count // 2))}
    parts["quant_map"] = _part(stored.pop(f"{weight}.quant_map"), "F32", 16)
    nested = "nested_blocksize" in fields
    parts["absmax"] = _part(stored.pop(f"{weight}.absmax"), "U8" if nested else "F32", scales)
    found = QuantisedWeight((shape[0], shape[1]), DTYPES[fields["dtype"]], parts, block)
    if not nested:
        return found
    nested_block, offset = _size(fields, "nested_blocksize"), fields["nested_offset"]
    for end, size in zip(_NESTED, (-(-scales // nested_block), 256), strict=True):
        parts[end] = _part(stored.pop(f"{weight}.{end}"), "F32", size)
    if not isinstance(offset, float) or not math.isfinite(offset):
        raise ValueError(f"a nested_offset of {offset!r:.60}")
    return dataclasses.replace(found, nested_block=nested_block, nested_offset=offset)


def _int8(stored: dict[str, Any], name: str, weight: str) -> QuantisedWeight:
    stored.pop(weight.removesuffix("weight") + "weight_format", None)
    shape = stored[weight].entry.shape
    if len(shape) != 2:
        raise ValueError(f"a shape of {list(shape)}")
    parts = {"": _part(stored[weight], "I8", math.prod(shape))}
    parts["SCB"] = _part(stored.pop(name), "F32", shape[0])
    return QuantisedWeight((shape[0], shape[1]), DTYPES["float32"], parts)


def _part(stored: Any, code: str, size: int) -> Any:
    entry: Entry = stored.entry
    if entry.code != code or math.prod(entry.shape) != size:
        raise ValueError(
            f"{stored.name} is {entry.code} {list(entry.shape)}, expected {size:,} of {code}"
        )
    return stored


def _size(fields: Mapping[str, Any], name: str) -> int:
    if not _is_size(fields[name]) or fields[name] > _MAX_BLOCK:
        raise ValueError(f"a {name} of {fields[name]!r:.60}")
    return fields[name]


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _read(stored: Any, threads: Executor) -> np.ndarray:
    out = np.empty(stored.entry.shape, _STORED[stored.entry.code])
    read_at(stored.file, stored.entry.start, out, threads)
    return out


def _times(values: np.ndarray, scales: np.ndarray, block: int) -> np.ndarray:
    """Returns the values, each multiplied by the scale of its block; the last may be short."""
    whole = len(values) // block
    head = values[: whole * block].reshape(whole, block)
    head *= scales[:whole, None]
    values[whole * block :] *= scales[-1]
    return values
