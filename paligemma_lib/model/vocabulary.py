"""Embeds tokens and computes logits, both with the embedding table of the decoder.

    x = vocabulary.embed(config, params, tokens)                   # dtype[B, T, D]
    logits = vocabulary.logits(config, params, hidden)             # float32[B, T, V]

The table, [V, D], is the largest parameter. So where it must be cast for logits, it is cast in
chunks of rows. Where it is split over devices, it is not all-gathered as a whole, either. Where it
is quantised, the same chunks are undone, and of the rows that tokens look up, each on its own.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from paligemma_lib.model.partitioning import gathered, split_examples
from paligemma_lib.model.stack import take
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.quantized import dequantized, is_quantized

_CHUNK = 16_384  # rows of the table that are cast at a time, see `num_chunks`


def embed(config: PaliGemmaConfig, params: dict[str, Any], tokens: jax.Array) -> jax.Array:
    """Embeds int32[B, T] tokens as dtype[B, T, D]; an id beyond the vocabulary gives NaN."""
    table = params["embedder"]["input_embedding"]
    # `mode="fill"` gives NaN for an id beyond the table. The other modes would hide the mistake.
    rows = jax.tree.map(lambda part: jnp.take(part, tokens, axis=0, mode="fill"), table)
    x = split_examples(dequantized(rows)).astype(jnp.float32)
    # Input and output share the table. Its entries are small, as logits need them, so Gemma scales
    # the embeddings by sqrt(D).
    return (x * config.language.width**0.5).astype(config.residual_dtype)


def logits(
    config: PaliGemmaConfig, params: dict[str, Any], hidden: jax.Array, *, shards: int = 1
) -> jax.Array:
    """Returns float32[..., V] logits for `hidden` dtype[..., D], as `final_norm` returns it.

    A quantised table, one of another dtype than `hidden`, and on a CPU any table of 16 bits, is
    used in chunks of rows (see `num_chunks`), so that no cast of the whole table is in memory.

    Args:
      config: the model.
      params: parameters of the language model, as `gemma.init` returns them.
      hidden: dtype[..., D] hidden states.
      shards: number of shards that the rows of the table may be split into over devices. Each
        chunk takes rows of all shards, so that no rows are sent between devices.
    """
    table = params["embedder"]["input_embedding"]
    whole = functools.partial(chunk_logits, config)
    by_chunks = functools.partial(_logits_by_chunks, config, shards)
    # Three cases. Another dtype: casting the whole table would take V * D elements, so chunks are
    # cast. Float32: one product. 16 bits: accelerators multiply them directly, but XLA's CPU
    # compiler would upcast the whole table first.
    if is_quantized(table) or table.dtype != hidden.dtype:
        return by_chunks(table, hidden)
    if table.dtype == jnp.float32:
        return whole(table, hidden)
    return jax.lax.platform_dependent(table, hidden, cpu=by_chunks, default=whole)


def _logits_by_chunks(
    config: PaliGemmaConfig, shards: int, table: Any, hidden: jax.Array
) -> jax.Array:
    rows, width = table.shape
    shards = shards if rows % shards == 0 else 1
    chunks = num_chunks(rows // shards, _CHUNK // shards)
    # If the table is split over `shards` devices along axis 0, chunk i takes a part of the rows of
    # each device: [shards, V / shards / chunks, D]. So no rows are sent between devices, and all
    # devices work on every chunk. With V = 8, shards = 2 and chunks = 2:
    #     rows of device 0: 0 1 | 2 3    of device 1: 4 5 | 6 7    chunks: [0 1 4 5], [2 3 6 7]
    view = table.reshape(shards, chunks, -1, width)

    # Without the checkpoint, the cast of every chunk would be saved for the backward pass.
    @jax.checkpoint
    def of_chunk(i: jax.Array) -> jax.Array:
        chunk = dequantized(gathered(take(view, i, axis=1)))
        return chunk_logits(config, chunk.reshape(-1, width), hidden)

    out = jax.lax.map(of_chunk, jnp.arange(chunks))
    # [chunks, ..., shards, C] becomes [..., shards, chunks, C], the order of rows in the table.
    out = out.reshape(chunks, *hidden.shape[:-1], shards, -1)
    return jnp.moveaxis(out, 0, -2).reshape(*hidden.shape[:-1], rows)


def num_chunks(rows: int, most: int) -> int:
    """Returns the number of equal chunks to divide `rows` into, of at most `most` rows if possible.

    If the number of rows has few divisors, so that only many small chunks would fit, the chunks are
    larger than `most`. A large prime number of rows gives one chunk.
    """
    wanted = -(-rows // most)  # rounded up
    larger = (n for n in range(wanted, 4 * wanted) if rows % n == 0)
    return next(larger, 0) or next(n for n in range(wanted, 0, -1) if rows % n == 0)


def chunk_logits(config: PaliGemmaConfig, rows: jax.Array, hidden: jax.Array) -> jax.Array:
    """Returns float32[..., C] logits for the rows [C, D] of the embedding table.

    Code that works through the vocabulary in chunks calls this, such as the loss, which never holds
    all logits.
    """
    rows = rows.astype(hidden.dtype)
    out = jnp.einsum("...d,vd->...v", hidden, rows, preferred_element_type=jnp.float32)
    softcap = config.language.final_softcap
    return out if softcap is None else softcap * jnp.tanh(out / softcap)
