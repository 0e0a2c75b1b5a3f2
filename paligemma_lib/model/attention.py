"""Attention, as SigLIP and Gemma share it: grouped heads, soft cap, float32 logits.

    out = attention(query, [(key, value)], mask)

Keys and values may come in several parts, each with as many rows as it needs. Decoding uses that:
the image's and prompt's keys, stored once per image, serve all beams or samples of that image,
which add only the keys of their own words.
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def attention(
    query: jax.Array,
    keys_values: Sequence[tuple[jax.Array, jax.Array]],
    mask: jax.Array | None = None,
    softcap: float | None = None,
) -> jax.Array:
    """Returns softmax(query . key) . value; logits and softmax are float32.

    Args:
      query: dtype[B, T, N, H], scaled already.
      keys_values: parts (dtype[B / R, S, K, H], dtype[B / R, S, K, H]); each row of a part serves
        R successive rows of `query`, each key head N / K successive query heads. A part may
        have its own R and S.
      mask: bool[B, T, sum of S], true where a query may look; None: everywhere.
      softcap: turns logits into `softcap * tanh(logits / softcap)`.

    Returns:
      dtype[B, T, N, H].
    """
    b, t, n, h = query.shape
    k = keys_values[0][0].shape[2]
    g = n // k
    logits = []
    for key, _ in keys_values:
        rows, s = key.shape[:2]
        r = b // rows
        # With the R rows of a part folded into the time axis, one product serves all of them and
        # the keys need no copies. G query heads share a key head (grouped-query attention): heads
        # are k-major, so that query head n belongs to key head n // G.
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
    if mask is not None:
        # The lowest finite number, not -inf: a row that sees nothing would be NaN, and so would its
        # gradients.
        all_logits = jnp.where(mask[:, None, :, None], all_logits, jnp.finfo(jnp.float32).min)
    # One softmax over all parts: what belongs together is normalized together, wherever it is
    # stored.
    weights = jax.nn.softmax(all_logits, axis=-1).astype(query.dtype)

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
