"""Grouped attention over keys in parts, in blocks of queries, by who sees whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_lib.batch import attention_mask
from paligemma_lib.model import attention as module
from paligemma_lib.model.attention import attention
from paligemma_lib.model.sight import Sight, at_positions

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
        out[b, t, n] = weights / max(weights.sum(), 1e-30) @ value[b, :, group]
    return out


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_parts_shared_by_rows_equal_plain_attention(num_kv_heads, softcap):
    query = random(B, T, N, H)
    sizes = [(B // 3, 5), (B // 2, 2), (B, 4)]  # rows and keys of each part
    parts = [
        (random(rows, s, num_kv_heads, H, seed=s), random(rows, s, num_kv_heads, H, seed=10 + s))
        for rows, s in sizes
    ]
    seen = np.random.default_rng(1).random((B, 11)) < 0.6
    seen[0] = False  # nothing to see
    key, value = (
        np.concatenate([np.repeat(x, B // len(x), axis=0) for x in xs], axis=1)
        for xs in zip(*parts, strict=True)
    )
    got = attention(query, parts, Sight.of_keys(jnp.asarray(seen)), softcap)
    mask = np.broadcast_to(seen[:, None], (B, T, 11))
    np.testing.assert_allclose(got, plain(query, key, value, mask, softcap), atol=1e-5)
    assert not np.any(got[0]) and np.any(got[1])


# An image of five tokens, then prefixes and suffixes of different lengths, and padding.
SEGMENT = np.array([[0, 0, 1, 1, 2, 2, 2, -1], [0, 0, 0, 0, 1, 2, 3, 3]], np.int32)
POSITION = np.array([[0, 1, 2, 3, 2, 3, 4, 0], [0, 1, 2, 3, 4, 4, 4, 5]], np.int32)
IMAGE = 5


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of so few bytes that each holds a query or two."""
    monkeypatch.setattr(module, "_BYTES", {"cpu": 1 << 10, "default": 1 << 10})


def of_batch(dtype=np.float32):
    sight = Sight.of_batch(jnp.asarray(SEGMENT), jnp.asarray(POSITION), IMAGE)
    length = IMAGE + SEGMENT.shape[1]
    arrays = [random(2, length, heads, H, seed=k) for k, heads in enumerate((N, 2, 2))]
    return sight, [jnp.asarray(array, dtype) for array in arrays]


def test_sight_is_the_mask_of_the_contract():
    sight, _ = of_batch()
    wanted = attention_mask(SEGMENT, POSITION, IMAGE)
    runs = sight.split(wanted.shape[1])
    assert [count for count, _ in runs] == [IMAGE, 8]
    shapes = [(2, count, wanted.shape[2]) for count, _ in runs]
    masks = [
        np.broadcast_to(who.mask(), shape) for (_, who), shape in zip(runs, shapes, strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(masks, axis=1), wanted)


@pytest.mark.parametrize("which", [3, 10, jnp.array([[12, 0, 5], [4, 6, 6]])])
def test_sight_of_some_queries(which):
    sight, _ = of_batch()
    wanted = jnp.asarray(attention_mask(SEGMENT, POSITION, IMAGE))
    rows = at_positions(wanted, which)
    some = sight.of(which, wanted.shape[1])
    got = [
        np.broadcast_to(who.mask(), (2, count, wanted.shape[2]))
        for count, who in some.split(rows.shape[1])
    ]
    np.testing.assert_array_equal(np.concatenate(got, axis=1), rows)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(("dtype", "atol"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_blocks_equal_the_whole(small_blocks, softcap, dtype, atol):
    sight, (query, key, value) = of_batch(dtype)
    query = query / 4

    def out(query, key, value, attend):
        return jnp.sin(attend(query, [(key, value)]).astype(jnp.float32))

    def whole(query, parts):
        mask = jnp.asarray(attention_mask(SEGMENT, POSITION, IMAGE))
        ((key, value),) = parts
        logits = jnp.einsum("bqkgh,bskh->bkgqs", query.reshape(2, -1, 2, 2, H), key)
        logits = logits.astype(jnp.float32)
        if softcap is not None:
            logits = softcap * jnp.tanh(logits / softcap)
        weights = jax.nn.softmax(jnp.where(mask[:, None, None], logits, -1e30))
        found = jnp.einsum("bkgqs,bskh->bqkgh", weights.astype(dtype), value)
        return found.reshape(query.shape)

    ways = [whole, lambda query, parts: attention(query, parts, sight, softcap)]
    outputs = [jax.jit(functools.partial(out, attend=way))(query, key, value) for way in ways]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=atol)
    gradients = [
        jax.jit(jax.grad(lambda *args, way=way: jnp.sum(out(*args, way)), argnums=(0, 1, 2)))(
            query, key, value
        )
        for way in ways
    ]
    for one, other in zip(*gradients, strict=True):
        one, other = (np.asarray(each, np.float32) for each in (one, other))
        np.testing.assert_allclose(other, one, atol=4 * atol)


@pytest.mark.parametrize("policy", ["none", "dots", "full"])
def test_no_policy_saves_the_logits_of_blocks(small_blocks, policy):
    """The square of the number of queries is in no array, forward or backward."""
    from paligemma_lib.model.stack import scan_layers

    length = 96
    x = jnp.ones((1, length, 2, 4))

    def layer(x, w, _):
        return x + attention(x * w, [(x, x)]), None

    def loss(w):
        return jnp.sum(scan_layers(layer, x, w, remat=policy)[0])

    lowered = jax.jit(jax.grad(loss)).lower(jnp.ones((3, 1)))
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 3 * length * length * 4


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
