"""Computes short digests of arrays, to compare arrays and to detect changed bits.

    fingerprint(params)                          # "5f0c3b91aa2d7e46"
    digests(params)["['img']['head']['bias']"]   # "float32[64] 2890741221"

Digests are computed on the devices that hold the arrays, and do not depend on the sharding. They
always detect a change of one element. They miss one in 2**32 other changes. Digests detect damage,
not manipulation.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SPREAD = 2654435761  # near 2**32 / golden ratio (Fibonacci hashing)


def fingerprint(tree: Any) -> str:
    """Returns 16 hexadecimal digits that depend on paths, dtypes, shapes and bits of a pytree."""
    return checksum(digests(tree))


def digests(tree: Any) -> dict[str, str]:
    """Returns dtype, shape and digest of each array, by its path in the pytree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = jax.device_get(_sums_of_bits([leaf for _, leaf in leaves]))
    return {
        jax.tree_util.keystr(path): f"{kind(leaf)} {int(number)}"
        for (path, leaf), number in zip(leaves, sums, strict=True)
    }


def not_finite(tree: Any) -> list[str]:
    """Returns path and number of values of each array that holds NaN or infinite values."""
    leaves = [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    counts = jax.device_get(_counts_not_finite([leaf for _, leaf in leaves]))
    return [
        f"{int(count):,} of {leaf.size:,} in {jax.tree_util.keystr(path)}"
        for (path, leaf), count in zip(leaves, counts, strict=True)
        if count
    ]


def kind(leaf: Any) -> str:
    """Returns the dtype and shape of an array, such as `float32[2,3]`."""
    return f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"


def checksum(content: Any) -> str:
    """Returns 16 hexadecimal digits of the SHA-256 of an object in types that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@jax.jit
def _counts_not_finite(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    return [jnp.sum(~jnp.isfinite(array), dtype=jnp.uint32) for array in arrays]


@jax.jit
def _sums_of_bits(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    return [_sum_of_bits(array) for array in arrays]


def _sum_of_bits(array: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}")
    # A sum of the bits alone would not change when elements swap places, so each element is mixed
    # with its index. The sum of mixed values does not depend on their order, so each device can sum
    # its own shard. For a matrix, element [i, j] is mixed with w**1 * i + w**2 * j mod 2**32, where
    # w is `_SPREAD`.
    place = jnp.uint32(0)
    for axis in range(array.ndim):
        weight = jnp.uint32(pow(_SPREAD, axis + 1, 1 << 32))
        place += weight * jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    # The finalizer of MurmurHash3 is a bijection, so a change of one element always changes the
    # sum. Each bit of the input affects all bits of the output.
    mixed = bits.astype(jnp.uint32) + place
    for factor, shift in ((1, 16), (0x85EBCA6B, 13), (0xC2B2AE35, 16)):
        mixed *= jnp.uint32(factor)
        mixed ^= mixed >> shift
    return jnp.sum(mixed, dtype=jnp.uint32)
