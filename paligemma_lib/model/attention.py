"""Computes attention for SigLIP and Gemma, with grouped heads, soft cap and float32 logits.

    out = attention(query, [(key, value)], sight)

Keys and values may be given in several parts, each with its own number of rows. Decoding uses this:
the keys of image and prompt are stored once per image and serve all beams or samples of that image.
Each beam or sample adds only the keys of its own tokens.

Many queries are taken some rows at a time, so that no more than a few megabytes of logits exist at
once, also in the backward pass, which computes them again. What grows with the number of queries
times that of keys is then only time. Each row still sees all of its keys at once: its softmax needs
no running sum, and is the same number as that of the whole matrix.
"""

import functools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from paligemma_lib.model.partitioning import num_shards
from paligemma_lib.model.sight import Sight

KeysValues = Sequence[tuple[jax.Array, jax.Array]]

# Bytes of logits of one block of rows on a device. On a CPU they stay in its cache: the backward
# pass is then two to three times as fast as with all logits at once. Accelerators want large
# products.
_BYTES = {"cpu": 2 << 20, "default": 64 << 20}


def block_bytes(platform: str) -> int:
    """Returns the most bytes of logits that are computed at once on a platform, such as "cpu"."""
    return _BYTES.get(platform, _BYTES["default"])


def attention(
    query: jax.Array,
    keys_values: KeysValues,
    sight: Sight | None = None,
    softcap: float | None = None,
) -> jax.Array:
    """Returns softmax(query . key) . value; logits and softmax are float32.

    Args:
      query: dtype[B, T, N, H], already scaled.
      keys_values: parts (dtype[B / R, S, K, H], dtype[B / R, S, K, H]). Each row of a part serves
        R successive rows of `query`, and each key head N / K successive query heads. R and S may
        differ between parts.
      sight: which of the sum of S keys each query attends to; None: all. The output of a query that
        attends to none is zero.
      softcap: if given, logits become `softcap * tanh(logits / softcap)`.

    Returns:
      dtype[B, T, N, H].
    """
    runs = [(query.shape[1], sight)] if sight is None else sight.split(query.shape[1])
    outputs, first = [], 0
    for count, who in runs:
        outputs.append(_by_blocks(query[:, first : first + count], keys_values, who, softcap))
        first += count
    return jnp.concatenate(outputs, axis=1) if len(outputs) > 1 else outputs[0]


def _by_blocks(
    query: jax.Array, keys_values: KeysValues, sight: Sight | None, softcap: float | None
) -> jax.Array:
    b, t, n, _ = query.shape
    keys = sum(key.shape[1] for key, _ in keys_values)
    of_row = max(1, b // num_shards()) * n * keys * 4  # bytes of a query's logits on a device
    blocks = {name: min(t, -(-t * of_row // size)) for name, size in _BYTES.items()}
    ways: dict[str, Callable[..., jax.Array]] = {
        name: functools.partial(_in_blocks if count > 1 else _mapped, count, softcap)
        for name, count in blocks.items()
    }
    if len(set(blocks.values())) == 1:
        return ways["default"](query, tuple(keys_values), sight)
    return lax.platform_dependent(query, tuple(keys_values), sight, **ways)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _in_blocks(
    count: int,
    softcap: float | None,
    query: jax.Array,
    keys_values: KeysValues,
    sight: Sight | None,
) -> jax.Array:
    """Computes so many blocks of queries one after the other."""
    return _mapped(count, softcap, query, keys_values, sight)


# The backward pass computes the logits of each block again. A rule of its own makes this hold under
# every policy of `model.stack`: "none" would save what is computed within the loop.
def _forward(count, softcap, query, keys_values, sight):
    out = _mapped(count, softcap, query, keys_values, sight)
    return out, (query, tuple(keys_values), sight)


def _backward(count, softcap, residuals, gradient):
    query, keys_values, sight = residuals

    def blocks(query: jax.Array, keys_values: KeysValues) -> jax.Array:
        return _mapped(count, softcap, query, keys_values, sight)

    _, vjp = jax.vjp(blocks, query, keys_values)
    return *vjp(gradient), None


_in_blocks.defvjp(_forward, _backward)


def _mapped(
    count: int,
    softcap: float | None,
    query: jax.Array,
    keys_values: KeysValues,
    sight: Sight | None,
) -> jax.Array:
    if count == 1:
        return _dense(query, keys_values, sight, softcap)
    b, t, n, h = query.shape
    rows = -(-t // count)

    def divided(x: jax.Array) -> jax.Array:
        # Queries that fill the last block up see what segment 0 sees, and are dropped.
        x = jnp.pad(x, ((0, 0), (0, count * rows - t), *((0, 0),) * (x.ndim - 2)))
        return x.reshape(b, count, rows, *x.shape[2:]).swapaxes(0, 1)

    looking = sight and sight.looking is not None and (sight.looking, sight.looking_position)
    blocks = divided(query), jax.tree.map(divided, looking or None)
    # Gradients of keys are summed over blocks in the dtype of the keys, hence float32.
    wide = [(key.astype(jnp.float32), value.astype(jnp.float32)) for key, value in keys_values]

    # Without the checkpoint, the logits of every block would be saved for the backward pass.
    @jax.checkpoint
    def of_block(block: tuple[jax.Array, tuple[jax.Array, jax.Array] | None]) -> jax.Array:
        query, own = block
        who = sight
        if sight is not None and own is not None:
            who = Sight(sight.seen, sight.seen_position, *own)
        return _dense(query, wide, who, softcap)

    out = lax.map(of_block, blocks)
    return out.swapaxes(0, 1).reshape(b, count * rows, n, h)[:, :t]


def _dense(
    query: jax.Array, keys_values: KeysValues, sight: Sight | None, softcap: float | None
) -> jax.Array:
    b, t, n, h = query.shape
    k = keys_values[0][0].shape[2]
    g = n // k
    logits = []
    for key, _ in keys_values:
        rows, s = key.shape[:2]
        r = b // rows
        # The R query rows that share a row of keys are folded into the time axis. So one product
        # serves all of them, and the keys are not copied. G query heads share a key head
        # (grouped-query attention): query head n belongs to key head n // G.
        part = jnp.einsum(
            "bqkgh,bskh->bkqgs",
            query.reshape(rows, r * t, k, g, h),
            key.astype(query.dtype),
            preferred_element_type=jnp.float32,
        )
        part = part.reshape(rows, k, r, t, g, s).swapaxes(1, 2)
        logits.append(part.reshape(b, k, t, g, s))
    all_logits = jnp.concatenate(logits, axis=-1) if len(logits) > 1 else logits[0]
    if softcap is not None:
        all_logits = softcap * jnp.tanh(all_logits / softcap)
    mask = None if sight is None else sight.mask()[:, None, :, None]  # [B, 1, T or 1, 1, S]
    if mask is not None:
        # The lowest finite number, not -inf: a row whose mask is all false would else become NaN,
        # and so would its gradients.
        all_logits = jnp.where(mask, all_logits, jnp.finfo(jnp.float32).min)
    # One softmax over the keys of all parts, so the parts give the same result as one array would.
    weights = jax.nn.softmax(all_logits, axis=-1)
    if mask is not None:
        weights = jnp.where(jnp.any(mask, axis=-1, keepdims=True), weights, 0)
    weights = weights.astype(query.dtype)

    # weights @ [v1; v2] = weights_1 @ v1 + weights_2 @ v2: each part takes its own columns.
    out, first = [], 0
    for _, value in keys_values:
        rows, s = value.shape[:2]
        r = b // rows
        part = weights[..., first : first + s].reshape(rows, r, k, t, g, s).swapaxes(1, 2)
        part = part.reshape(rows, k, r * t, g, s)
        part = jnp.einsum("bkqgs,bskh->bqkgh", part, value.astype(query.dtype))
        out.append(part.reshape(b, t, n, h))
        first += s
    return functools.reduce(operator.add, out)
