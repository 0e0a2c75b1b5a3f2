"""Quantises arrays on the host, in pieces, so that little memory is needed beside the result.

stored = quantize(rows, "nf4", "bfloat16")                  # components are NumPy arrays
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib.quantized.array_type import BLOCK, NF4, Kind, Quantized, abstract

_AT_ONCE = 1 << 20  # values that are quantised at a time


def quantize(rows: np.ndarray, kind: Kind, dtype: Any) -> Quantized:
    """Returns rows float[N, ...] quantised, on the host.

    It takes memory for the result and a million values, beside `rows` themselves. The default
    device computes.

    Args:
      rows: finite values.
      kind: "int8" or "nf4".
      dtype: dtype that they are undone to.
    """
    like = abstract(rows.shape, kind, dtype)
    count, groups = like.maxima.shape
    per, values = like.scales.shape[1] // groups, like.scales.shape[1] * BLOCK
    rows = rows.reshape(count, -1)
    if rows.shape[1] < values:  # the last block of a row is filled with zeros
        rows = np.pad(rows, ((0, 0), (0, values - rows.shape[1])))
    # No group depends on another, so the groups of all rows are one list, quantised in pieces.
    flat = rows.reshape(count * groups, per, BLOCK)
    found = jax.tree.map(lambda part: np.empty(part.shape, part.dtype), like)
    lists = [part.reshape(len(flat), -1) for part in jax.tree.leaves(found)]
    step = max(1, _AT_ONCE // (per * BLOCK))
    for first in range(0, len(flat), step):
        piece = slice(first, first + step)
        for whole, part in zip(lists, _of_groups(flat[piece], kind), strict=True):
            whole[piece] = part.reshape(len(part), -1)
    return found


@functools.partial(jax.jit, static_argnums=1)
def _of_groups(values: jax.Array, kind: Kind) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns codes, scales and maxima of groups float[G, blocks, 64]."""
    values = values.astype(jnp.float32)
    largest = jnp.max(jnp.abs(values), axis=2)
    maxima = jnp.max(largest, axis=1)
    share = largest / jnp.where(maxima > 0, maxima, 1)[:, None]
    # Rounded up: a scale below the largest magnitude would cut that value off.
    scales = jnp.ceil(jnp.sqrt(share) * 255)
    scale = jnp.square(scales / 255) * maxima[:, None]
    ratio = values / jnp.where(scale > 0, scale, 1)[..., None]
    if kind == "int8":
        codes = jnp.clip(jnp.round(ratio * 127), -127, 127).astype(jnp.int8)
    else:
        middles = [(low + high) / 2 for low, high in itertools.pairwise(NF4)]
        index = jnp.zeros(ratio.shape, jnp.uint8)
        for middle in middles:
            index += (ratio > middle).astype(jnp.uint8)
        codes = index[..., : BLOCK // 2] | (index[..., BLOCK // 2 :] << jnp.uint8(4))
    return codes, scales.astype(jnp.uint8), maxima
