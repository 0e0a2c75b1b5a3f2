"""Computes attention for SigLIP and Gemma, with grouped heads, soft cap and float32 logits.

    out = attention(query, [(key, value)], mask)

Keys and values may be given in several parts, each with its own number of rows. Decoding uses this:
the keys of image and prompt are stored once per image and serve all beams or samples of that image.
Each beam or sample adds only the keys of its own tokens.
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
      query: dtype[B, T, N, H], already scaled.
      keys_values: parts (dtype[B / R, S, K, H], dtype[B / R, S, K, H]). Each row of a part serves
        R successive rows of `query`, and each key head N / K successive query heads. R and S may
        differ between parts.
      mask: bool[B, T, sum of S], true where a query attends to a key; None: everywhere.
      softcap: if given, logits become `softcap * tanh(logits / softcap)`.

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
    if mask is not None:
        # The lowest finite number, not -inf: a row whose mask is all false would else become NaN,
        # and so would its gradients.
        all_logits = jnp.where(mask[:, None, :, None], all_logits, jnp.finfo(jnp.float32).min)
    # One softmax over the keys of all parts, so the parts give the same result as one array would.
    weights = jax.nn.softmax(all_logits, axis=-1).astype(query.dtype)

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
