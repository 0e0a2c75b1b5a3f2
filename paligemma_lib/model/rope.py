"""Rotates queries and keys by their positions: RoPE (arXiv 2104.09864).

query = apply_rope(query, position)           # float32[B, T, N, H]
"""

import jax
import jax.numpy as jnp


def apply_rope(x: jax.Array, position: jax.Array) -> jax.Array:
    """Applies RoPE with base 10,000 to [B, T, N, H] at int32[B, T] positions; returns float32."""
    half = x.shape[-1] // 2
    # Pair j of a head is rotated by the angle position / 10,000**(j / half). As in Gemma, a pair is
    # (x[j], x[j + half]), not (x[2 j], x[2 j + 1]).
    frequency = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position.astype(jnp.float32)[..., None, None] * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    # Each pair is multiplied by the rotation matrix [cos -sin; sin cos]. The product of a query and
    # a key then depends only on the difference of their positions.
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
