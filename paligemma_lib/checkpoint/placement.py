"""Moves arrays to and from devices, one block of rows at a time, and casts them on the way.

    array = to_devices("llm/embedder", shape, dtype, sharding, read, stored_dtype)
    for rows in to_host("llm/embedder", array, dtype): ...

A block is as many rows of axis 0 (layers, in stacked parameters) as fit into 32 MiB, at least one.
"""

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from paligemma_lib.checkpoint.finite import NotFinite, count_not_finite
from paligemma_lib.checkpoint.shard_buffers import ShardBuffers, TooLarge, cast_rows, is_cpu
from paligemma_lib.quantized import Kind, Quantized, abstract, quantize

_BLOCK = 32 << 20  # bytes


def to_devices(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: Sharding,
    read: Callable[[slice, np.ndarray], object],
    stored: np.dtype,
    place: str = "the checkpoint",
    kind: Kind | None = None,
) -> Any:
    """Builds an array on devices from blocks that are read one after the other.

    Host memory holds one block, and the shards of CPU devices.

    Args:
      name: name of the array in errors.
      shape: shape of the whole array, with at least one axis.
      dtype: dtype of the result; of a quantised one, the dtype that it is undone to.
      sharding: sharding of the result. Blocks outside this process's shards are not read.
      read: `read(rows, out)` fills `out`, stored[rows, ...], with these rows of the array.
      stored: dtype of the values as they are read.
      place: where the values come from, in errors.
      kind: "int8" or "nf4" to quantise each block before it is sent; None: not.

    Returns:
      `jax.Array` or, with a kind, `Quantized`.

    Raises:
      ValueError: a value is too large for `dtype`, or NaN or infinite. A process looks at the rows
        that it reads, and waits for no other.
    """
    if kind is None:
        result: Any = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    else:
        result = abstract(shape, kind, dtype, sharding)
    # One for the array, or one for each component of a quantised array.
    components, tree = jax.tree.flatten(result)
    fillings = [ShardBuffers(name, each) for each in components]
    # With one CPU device and no cast, bytes are read straight into the memory of the result.
    whole = fillings[0].whole if kind is None and dtype == stored else None
    # Values are looked at in another thread while the next ones are read, or these are sent.
    counts: list[Future[int]] = []
    total = 0
    with ThreadPoolExecutor(1, "finite") as beside:
        for block in row_blocks(shape, stored.itemsize):
            if whole is not None:
                rows = whole[block]
                read(block, rows)
                counts.append(beside.submit(count_not_finite, rows))
                total += rows.size
                continue
            if not any(filling.wants(block) for filling in fillings):
                continue
            rows = np.empty((block.stop - block.start, *shape[1:]), stored)
            read(block, rows)
            counts.append(beside.submit(count_not_finite, rows))
            total += rows.size
            values = rows if kind is None else _quantized(name, rows, kind, dtype)
            for filling, each in zip(fillings, jax.tree.leaves(values), strict=True):
                filling.write(block, each)
            counts[-1].result()  # so that no more than one block is held
    if bad := sum(count.result() for count in counts):
        raise NotFinite(place, {name: (bad, total)})
    return jax.tree.unflatten(tree, [filling.finish() for filling in fillings])


def _quantized(name: str, rows: np.ndarray, kind: Kind, dtype: np.dtype) -> Quantized:
    values = quantize(rows, kind, dtype)
    if (worst := float(values.maxima.max())) > float(jnp.finfo(dtype).max) and np.isfinite(worst):
        raise TooLarge(name, worst, dtype)
    return values


def to_host(name: str, array: Any, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yields the rows of an array in order, cast to `dtype`, one block at a time.

    Args:
      name: name of the array in errors.
      array: `jax.Array` of any sharding, a NumPy array, or an object with `shape`, `dtype` and rows
        by a slice, such as `StoredArray`. A quantised array is undone.
      dtype: dtype of the result.

    Raises:
      ValueError: a value is too large for `dtype`, or other processes hold a shard of the array.
    """
    for block in row_blocks(array.shape, array.dtype.itemsize):
        rows = host_rows(name, array, block)
        if rows.dtype != dtype:
            stored, rows = rows, np.empty(rows.shape, dtype)
            cast_rows(stored, rows, name)
        yield rows


def row_blocks(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """Yields slices of axis 0, in order, of at most 32 MiB or one row, that cover the array."""
    step = max(1, _BLOCK // max(1, math.prod(shape[1:]) * itemsize))
    for first in range(0, shape[0], step):
        yield slice(first, min(first + step, shape[0]))


@functools.partial(jax.jit, static_argnums=2)
def _rows(array: jax.Array, first: int, count: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(array, first, count, 0)


def host_rows(name: str, array: Any, block: slice) -> np.ndarray:
    """Returns rows of an array as NumPy; for the arguments and errors see `to_host`."""
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
        if is_cpu(shard.device):  # NumPy views the memory of a CPU shard without a copy
            part = np.asarray(shard.data)[first - start : last - start]
        else:
            part = np.asarray(_rows(shard.data, first - start, last - first))
        if part.shape == out.shape:
            return part
        out[(slice(first - block.start, last - block.start), *shard.index[1:])] = part
    return out
