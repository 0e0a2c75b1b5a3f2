"""What arrays hold, in a few digits each: to tell them apart, and to find bits that have changed.

    fingerprint(params)                          # "5f0c3b91aa2d7e46"
    digests(params)["['img']['head']['bias']"]   # "float32[64] 2890741221"

Computed where the arrays lie, and the same for any sharding. A change of one element is always
found, other changes but for one in 2**32. A check, not a safeguard against intent.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SPREAD = 2654435761  # near 2**32 over the golden ratio, so that places get spread weights


def fingerprint(tree: Any) -> str:
    """16 hexadecimal digits that tell trees of arrays apart by names, types, shapes and bits."""
    return checksum(digests(tree))


def digests(tree: Any) -> dict[str, str]:
    """For each array by its path: its type, its shape, and a sum of its bits and their places."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = jax.device_get(_sums_of_bits([leaf for _, leaf in leaves]))
    return {
        jax.tree_util.keystr(path): f"{kind(leaf)} {int(number)}"
        for (path, leaf), number in zip(leaves, sums, strict=True)
    }


def kind(leaf: Any) -> str:
    """Type and shape of an array, as in float32[2,3]."""
    return f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"


def checksum(content: Any) -> str:
    """16 hexadecimal digits of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@jax.jit
def _sums_of_bits(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    return [_sum_of_bits(array) for array in arrays]


def _sum_of_bits(array: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}")
    # Bits alone would not tell a permutation of equal values apart: each is mixed with its place.
    # The sum of the mixed values is the same in any order, so each device can sum its own part.
    place = jnp.uint32(0)
    for axis in range(array.ndim):
        weight = jnp.uint32(pow(_SPREAD, axis + 1, 1 << 32))
        place += weight * jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    # The last steps of MurmurHash3: each value goes to another one, and all bits have a part in it.
    mixed = bits.astype(jnp.uint32) + place
    for factor, shift in ((1, 16), (0x85EBCA6B, 13), (0xC2B2AE35, 16)):
        mixed *= jnp.uint32(factor)
        mixed ^= mixed >> shift
    return jnp.sum(mixed, dtype=jnp.uint32)
