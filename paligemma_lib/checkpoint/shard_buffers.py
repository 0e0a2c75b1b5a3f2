"""Holds an array's shards on their devices while it is filled, one block of rows at a time.

    buffers = ShardBuffers("llm/embedder", jax.ShapeDtypeStruct(shape, dtype, sharding=sharding))
    buffers.write(slice(0, 512), rows)
    array = buffers.finish()

Rows are cast as they are written. The shards of a CPU are memory that JAX takes over as it is.
"""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class ShardBuffers:
    """An array on its devices that is filled block by block.

    Attributes:
      whole: its memory, if it is one array of the host; else None.
    """

    def __init__(self, name: str, array: jax.ShapeDtypeStruct) -> None:
        self._name, self._array = name, array
        # The index of each shard, as (start, stop) for every axis. For [18, 64] split along axis 1
        # over two devices: {device 0: [(0, 18), (0, 32)], device 1: [(0, 18), (32, 64)]}.
        shape, indices = array.shape, array.sharding.addressable_devices_indices_map(array.shape)
        self._boxes = {
            device: [part.indices(n)[:2] for part, n in zip(index or (), shape, strict=True)]
            for device, index in indices.items()
        }
        self._buffers = {
            device: _empty(tuple(last - first for first, last in box), array.dtype, device)
            for device, box in self._boxes.items()
        }
        one = next(iter(self._buffers.values())) if len(self._buffers) == 1 else None
        self.whole = one if isinstance(one, np.ndarray) and one.shape == shape else None

    def wants(self, block: slice) -> bool:
        """Returns whether any shard has rows of the block."""
        return any(
            box[0][0] < block.stop and block.start < box[0][1] for box in self._boxes.values()
        )

    def write(self, block: slice, rows: np.ndarray) -> None:
        """Writes the rows of a block into each shard, which takes its own columns of them."""
        for device, ((origin, end), *others) in self._boxes.items():
            first, last = max(block.start, origin), min(block.stop, end)
            if first < last:
                here = slice(first - block.start, last - block.start)
                part = rows[(here, *itertools.starmap(slice, others))]
                buffer = self._buffers[device]
                self._buffers[device] = _write(buffer, part, first - origin, self._name)

    def finish(self) -> jax.Array:
        array = self._array
        arrays = [jax.device_put(buffer, device) for device, buffer in self._buffers.items()]
        return jax.make_array_from_single_device_arrays(
            array.shape, array.sharding, arrays, dtype=array.dtype
        )


class TooLarge(ValueError):
    """Raised for a finite value that is too large for the dtype it is cast to."""

    def __init__(self, name: str, worst: float, dtype: np.dtype) -> None:
        """Makes the message: the array's name, its largest value, and the dtype."""
        super().__init__(
            f"{name} has values up to {worst:g}, too large for {dtype}, which holds at most "
            f"{float(jnp.finfo(dtype).max):g}: use float32{', or bfloat16' * (dtype == np.float16)}"
        )


def cast_rows(source: np.ndarray, out: np.ndarray, name: str) -> None:
    """Assigns `out[...] = source`; raises TooLarge if a finite value becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        out[...] = source
    if source.dtype == out.dtype:
        return
    # The largest float16 is 65,504. A model with infinite weights would load without an error and
    # produce nonsense. The loss is searched for only where the target has the smaller range, and
    # values that are infinite in `source` already are no loss.
    largest = float(jnp.finfo(out.dtype).max)
    if largest < float(jnp.finfo(source.dtype).max) and np.isinf(out).any():
        lost = np.isinf(out) & np.isfinite(source)
        if lost.any():
            worst = np.abs(source[lost].astype(np.float32)).max()
            raise TooLarge(name, worst, out.dtype)


def is_cpu(device: jax.Device) -> bool:
    """Returns whether a device has the memory of the host."""
    return device.platform == "cpu"


def _empty(shape: tuple[int, ...], dtype: np.dtype, device: jax.Device) -> Any:
    """Returns a buffer for a device's shard; on CPU, one that `jax.device_put` does not copy."""
    if not is_cpu(device):
        return jnp.zeros(shape, dtype, device=device)
    # On CPU, JAX uses NumPy memory without a copy if it is aligned to 64 bytes. `np.empty` aligns
    # to 16 bytes, so 64 spare bytes are allocated and the view starts at the first aligned one. For
    # an address of 1,040 = 16 * 64 + 16, `-1040 % 64` is 48, so it starts at 1,088 = 17 * 64.
    size, alignment = math.prod(shape) * dtype.itemsize, 64
    memory = np.empty(size + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + size].view(dtype).reshape(shape)


def _write(buffer: Any, part: np.ndarray, first: int, name: str) -> Any:
    """Returns the buffer after `part`, cast, is written to it from row `first` on."""
    if isinstance(buffer, np.ndarray):
        cast_rows(part, buffer[first : first + len(part)], name)
        return buffer
    rows = np.empty(part.shape, buffer.dtype)
    cast_rows(part, rows, name)
    # Dispatch is asynchronous: without the wait, blocks pile up in memory ahead of their transfers.
    rows = jax.device_put(rows, buffer.sharding)
    return jax.block_until_ready(_update(buffer, rows, first))


# Donation lets XLA update the buffer in place, so that a device never holds a shard twice.
@functools.partial(jax.jit, donate_argnums=0)
def _update(buffer: jax.Array, rows: jax.Array, first: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, rows, first, 0)
