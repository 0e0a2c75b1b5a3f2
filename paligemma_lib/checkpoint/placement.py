"""Moves arrays to and from devices, one block of rows at a time, and casts them on the way.

    array = to_devices("llm/embedder", shape, dtype, sharding, read, stored_dtype)
    for rows in to_host("llm/embedder", array, dtype): ...

A block is as many rows of axis 0 (layers, in stacked parameters) as fit into 32 MiB, at least one.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

_BLOCK = 32 << 20  # bytes


def to_devices(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: Sharding,
    read: Callable[[slice, np.ndarray], object],
    stored: np.dtype,
) -> jax.Array:
    """Builds an array on devices from blocks that are read one after the other.

    Host memory holds one block, and the shards of CPU devices.

    Args:
      name: name of the array in errors.
      shape: shape of the whole array, with at least one axis.
      dtype: dtype of the result.
      sharding: sharding of the result. Blocks outside this process's shards are not read.
      read: `read(rows, out)` fills `out`, stored[rows, ...], with these rows of the array.
      stored: dtype of the values as they are read.

    Raises:
      ValueError: a value is too large for `dtype`.
    """
    # The index of each shard, as (start, stop) for every axis. For [18, 64] split along axis 1 over
    # two devices: {device 0: [(0, 18), (0, 32)], device 1: [(0, 18), (32, 64)]}.
    boxes = {
        device: [part.indices(n)[:2] for part, n in zip(index or (), shape, strict=True)]
        for device, index in sharding.addressable_devices_indices_map(shape).items()
    }
    buffers = {
        device: _empty(tuple(last - first for first, last in box), dtype, device)
        for device, box in boxes.items()
    }
    # With one CPU device and no cast, bytes are read straight into the memory of the result.
    one = next(iter(buffers.values())) if len(buffers) == 1 else None
    in_place = isinstance(one, np.ndarray) and one.shape == shape and dtype == stored
    for block in row_blocks(shape, stored.itemsize):
        if in_place:
            read(block, cast(np.ndarray, one)[block])
            continue
        # Intersect this block with the rows of each shard. Shards that split other axes share rows,
        # so a block is read once and each device takes its own columns from it.
        targets = [
            (device, max(block.start, box[0][0]), min(block.stop, box[0][1]))
            for device, box in boxes.items()
        ]
        targets = [target for target in targets if target[1] < target[2]]
        if not targets:
            continue
        rows = np.empty((block.stop - block.start, *shape[1:]), stored)
        read(block, rows)
        for device, first, last in targets:
            (origin, _), *others = boxes[device]
            here = slice(first - block.start, last - block.start)
            part = rows[(here, *itertools.starmap(slice, others))]
            buffers[device] = _write(buffers[device], part, first - origin, name)
    arrays = [jax.device_put(buffer, device) for device, buffer in buffers.items()]
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays, dtype=dtype)


def to_host(name: str, array: Any, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yields the rows of an array in order, cast to `dtype`, one block at a time.

    Args:
      name: name of the array in errors.
      array: `jax.Array` of any sharding, a NumPy array, or an object with `shape`, `dtype` and rows
        by a slice, such as `StoredArray`.
      dtype: dtype of the result.

    Raises:
      ValueError: a value is too large for `dtype`, or other processes hold a shard of the array.
    """
    for block in row_blocks(array.shape, array.dtype.itemsize):
        rows = _host_rows(name, array, block)
        if rows.dtype != dtype:
            stored, rows = rows, np.empty(rows.shape, dtype)
            _cast(stored, rows, name)
        yield rows


def row_blocks(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """Yields slices of axis 0, in order, of at most 32 MiB or one row, that cover the array."""
    step = max(1, _BLOCK // max(1, math.prod(shape[1:]) * itemsize))
    for first in range(0, shape[0], step):
        yield slice(first, min(first + step, shape[0]))


def _cast(source: np.ndarray, out: np.ndarray, name: str) -> None:
    """Assigns `out[...] = source`; raises ValueError if a finite value becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        out[...] = source
    # The largest float16 is 65,504. A model with infinite weights would load without an error and
    # produce nonsense. The loss is searched for only where the target has the smaller range, and
    # values that are infinite in `source` already are no loss.
    largest = float(jnp.finfo(out.dtype).max)
    if largest < float(jnp.finfo(source.dtype).max) and np.isinf(out).any():
        lost = np.isinf(out) & np.isfinite(source)
        if lost.any():
            worst = np.abs(source[lost].astype(np.float32)).max()
            raise ValueError(
                f"{name} has values up to {worst:g}, too large for {out.dtype}, which holds at "
                f"most {largest:g}: use float32{', or bfloat16' * (out.dtype == np.float16)}"
            )


def _is_cpu(device: jax.Device) -> bool:
    return device.platform == "cpu"


def _empty(shape: tuple[int, ...], dtype: np.dtype, device: jax.Device) -> Any:
    """Returns a buffer for a device's shard; on CPU, one that `jax.device_put` does not copy."""
    if not _is_cpu(device):
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
        _cast(part, buffer[first : first + len(part)], name)
        return buffer
    rows = np.empty(part.shape, buffer.dtype)
    _cast(part, rows, name)
    # Dispatch is asynchronous: without the wait, blocks pile up in memory ahead of their transfers.
    rows = jax.device_put(rows, buffer.sharding)
    return jax.block_until_ready(_update(buffer, rows, first))


# Donation lets XLA update the buffer in place, so that a device never holds a shard twice.
@functools.partial(jax.jit, donate_argnums=0)
def _update(buffer: jax.Array, rows: jax.Array, first: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, rows, first, 0)


@functools.partial(jax.jit, static_argnums=2)
def _rows(array: jax.Array, first: int, count: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(array, first, count, 0)


def _host_rows(name: str, array: Any, block: slice) -> np.ndarray:
    if not isinstance(array, jax.Array):
        return array[block]
    # Replicas have equal indices, so one shard is kept for each index. Slices have no hash before
    # Python 3.12; their text serves as the key.
    shards = {str(shard.index): shard for shard in array.addressable_shards}.values()
    if sum(shard.data.size for shard in shards) != array.size:
        raise ValueError(
            f"{name} has shards in other processes: gather it before saving, with "
            "jax.experimental.multihost_utils.process_allgather(..., tiled=True)"
        )
    out = np.empty((block.stop - block.start, *array.shape[1:]), array.dtype)
    for shard in shards:
        start, stop, _ = shard.index[0].indices(array.shape[0])
        first, last = max(block.start, start), min(block.stop, stop)
        if first >= last:
            continue
        if _is_cpu(shard.device):  # NumPy views the memory of a CPU shard without a copy
            part = np.asarray(shard.data)[first - start : last - start]
        else:
            part = np.asarray(_rows(shard.data, first - start, last - first))
        if part.shape == out.shape:
            return part
        out[(slice(first - block.start, last - block.start), *shard.index[1:])] = part
    return out
