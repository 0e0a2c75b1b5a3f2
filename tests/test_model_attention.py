"""Grouped attention over keys in parts."""

import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_lib.model.attention import attention

B, T, N, H = 6, 3, 4, 8

pytestmark = pytest.mark.usefixtures("strict_promotion")


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def plain(query, key, value, mask, softcap):
    """One row, one head, one query at a time."""
    out = np.zeros(query.shape)
    for b, t, n in np.ndindex(query.shape[:3]):
        group = n // (query.shape[2] // key.shape[2])
        scores = key[b, :, group] @ query[b, t, n]
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        weights = np.where(mask[b, t], np.exp(scores), 0)
        out[b, t, n] = weights / weights.sum() @ value[b, :, group]
    return out


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_parts_shared_by_rows_equal_plain_attention(num_kv_heads, softcap):
    query = random(B, T, N, H)
    sizes = [(B // 3, 5), (B // 2, 2), (B, 4)]  # rows and slots of each part
    parts = [
        (random(rows, s, num_kv_heads, H, seed=s), random(rows, s, num_kv_heads, H, seed=10 + s))
        for rows, s in sizes
    ]
    mask = np.random.default_rng(1).random((B, T, 11)) < 0.6
    mask[..., 0] = True
    key, value = (
        np.concatenate([np.repeat(x, B // len(x), axis=0) for x in xs], axis=1)
        for xs in zip(*parts, strict=True)
    )
    got = attention(query, parts, mask, softcap)
    np.testing.assert_allclose(got, plain(query, key, value, mask, softcap), atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_logits_are_float32_whatever_comes_in(dtype):
    """One key lies 1/32 above the other at a height where both types step by 1/2 or more."""
    query = jnp.full((1, 1, 1, 2), 32, dtype)
    key = jnp.array([[32, 0], [32, 2**-10]], dtype).reshape(1, 2, 1, 2)
    value = jnp.array([0, 1], dtype).reshape(1, 2, 1, 1)
    got = attention(query, [(key, jnp.broadcast_to(value, key.shape))])
    expected = 1 / (1 + np.exp(-(2**-5)))
    assert got[0, 0, 0, 0] == dtype(expected)
    assert dtype(expected) != dtype(0.5)
