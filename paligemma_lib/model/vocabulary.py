"""Both ends of the decoder, which share one table: tokens in, logits out.

    x = vocabulary.embed(config, params, tokens)                   # dtype[B, T, D]
    logits = vocabulary.logits(config, params, hidden)             # float32[B, T, V]

The table, [V, D], is the largest of all parameters: it is cast chunk by chunk where it must be, and
where it is split over devices, it is not gathered as a whole either.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from paligemma_lib.model.partitioning import gathered, split_examples
from paligemma_lib.model.stack import take
from paligemma_lib.model.variants import PaliGemmaConfig

_CHUNK = 16_384  # rows of the table that are cast at a time


def embed(config: PaliGemmaConfig, params: dict[str, Any], tokens: jax.Array) -> jax.Array:
    """Embeds int32[B, T] tokens as dtype[B, T, D]; an id beyond the vocabulary becomes NaN."""
    table = params["embedder"]["input_embedding"]
    # `mode="fill"` makes an id beyond the vocabulary visible, as NaN.
    x = split_examples(jnp.take(table, tokens, axis=0, mode="fill")).astype(jnp.float32)
    # Gemma's table is used for both ends; its entries are small for the logits, and scaled up here.
    return (x * config.language.width**0.5).astype(config.residual_dtype)


def logits(
    config: PaliGemmaConfig, params: dict[str, Any], hidden: jax.Array, *, shards: int = 1
) -> jax.Array:
    """Returns float32[..., V] logits of `hidden` dtype[..., D], as `final_norm` returns it.

    A table of another type, and on a CPU one of 16 bits, is used chunk by chunk, see `num_chunks`,
    so that no cast of the whole of it exists.

    Args:
      config: the model.
      params: as `init` returns.
      hidden: dtype[..., D].
      shards: into how many shards the table's rows may be split over devices. Each chunk takes rows
        of all shards, so that none need be sent.
    """
    table = params["embedder"]["input_embedding"]
    whole = functools.partial(chunk_logits, config)
    by_chunks = functools.partial(_logits_by_chunks, config, shards)
    # Three cases. Another type: casting the whole table would take V * D again, so chunks are cast.
    # Float32: one product. 16 bits: an accelerator multiplies them as they are; XLA's CPU compiler
    # would widen the whole table first.
    if table.dtype != hidden.dtype:
        return by_chunks(table, hidden)
    if table.dtype == jnp.float32:
        return whole(table, hidden)
    return jax.lax.platform_dependent(table, hidden, cpu=by_chunks, default=whole)


def _logits_by_chunks(
    config: PaliGemmaConfig, shards: int, table: jax.Array, hidden: jax.Array
) -> jax.Array:
    rows, width = table.shape
    shards = shards if rows % shards == 0 else 1
    chunks = num_chunks(rows // shards, _CHUNK // shards)
    # With the table split over `shards` devices along axis 0, chunk i is a part of each device's
    # rows: [shards, V / shards / chunks, D]. So no rows cross devices, and all work on every chunk.
    view = table.reshape(shards, chunks, -1, width)

    # Or the backward pass would keep every chunk's cast.
    @jax.checkpoint
    def of_chunk(i: jax.Array) -> jax.Array:
        chunk = gathered(take(view, i, axis=1))
        return chunk_logits(config, chunk.reshape(-1, width), hidden)

    out = jax.lax.map(of_chunk, jnp.arange(chunks))
    # [chunks, ..., shards, V / shards / chunks] to [..., shards, chunks, ...], whose order is the
    # table's.
    out = out.reshape(chunks, *hidden.shape[:-1], shards, -1)
    return jnp.moveaxis(out, 0, -2).reshape(*hidden.shape[:-1], rows)


def num_chunks(rows: int, most: int) -> int:
    """Into how many equal chunks to divide rows of the table: of `most` rows at most, if possible.

    Where only many small chunks would do, because the number of rows has few divisors, they are
    larger: of a prime number of rows there is one.
    """
    wanted = -(-rows // most)
    larger = (n for n in range(wanted, 4 * wanted) if rows % n == 0)
    return next(larger, 0) or next(n for n in range(wanted, 0, -1) if rows % n == 0)


def chunk_logits(config: PaliGemmaConfig, rows: jax.Array, hidden: jax.Array) -> jax.Array:
    """Returns float32[..., C] logits for the rows [C, D] of the embedding table.

    What works through the vocabulary, such as a loss that never holds all logits, calls this.
    """
    rows = rows.astype(hidden.dtype)
    out = jnp.einsum("...d,vd->...v", hidden, rows, preferred_element_type=jnp.float32)
    softcap = config.language.final_softcap
    return out if softcap is None else softcap * jnp.tanh(out / softcap)
