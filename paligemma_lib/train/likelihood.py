"""Computes the likelihood of tokens without holding all logits.

    nll = negative_log_likelihood(config, (0.0, 0.0), table, hidden, target, supervised)

Logits are computed in tiles: a block of a few hundred positions by a chunk of some thirty thousand
tokens of the vocabulary. How many blocks there are depends on how many positions are supervised.
Logits, sums and gradients are float32, whatever the activations are.

For one position with logits z[v], target t, smoothing s over V tokens and z-loss weight c, the loss
and its gradient are, with log Z = logsumexp(z) and the softmax p[v] = exp(z[v] - log Z),

    loss       = log Z - (1 - s) z[t] - s mean(z) + c (log Z)**2
    dloss/dz_v = p[v] (1 + 2 c log Z) - (1 - s) [v = t] - s / V

since d log Z / dz_v = p[v]. So the backward pass needs log Z and the logits. Beside its own inputs,
the forward pass saves log Z, one number per position. The backward pass recomputes the logits, tile
by tile.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from paligemma_lib.model.partitioning import split_examples
from paligemma_lib.model.stack import scan_layers
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.model.vocabulary import chunk_logits, num_chunks

# A tile of logits on each device: 256 x 32,768 float32 take 32 MiB. The backward pass needs a few.
POSITIONS = 256
_ROWS = 32_768  # most tokens of the vocabulary in a chunk, which are rows of the table


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def negative_log_likelihood(
    config: PaliGemmaConfig,
    hyperparameters: tuple[float, float],
    table: Any,
    hidden: jax.Array,
    target: jax.Array,
    supervised: jax.Array,
) -> jax.Array:
    """Returns the loss of predicting each target, float32[shards, M].

    Args:
      config: the model.
      hyperparameters: the pair `label_smoothing` and `z_loss`, see `loss.token_losses`.
      table: embedding table [V, D] in any float dtype, or quantised.
      hidden: dtype[shards, M, D] hidden states, each where its target is predicted.
      target: int32[shards, M] tokens.
      supervised: bool[shards, M], in each shard all true values first. The loss is 0 where it is
        false.
    """
    return _losses(config, hyperparameters, table, hidden, target, supervised)[0]


def _losses(config, hyperparameters, table, hidden, target, supervised):
    """Returns the loss, and log Z for the backward pass; float32[shards, M] each."""
    label_smoothing, z_loss = hyperparameters
    block, iterations = _iterations(supervised)
    vocabulary = table.shape[0]
    padded_hidden, padded_target = _pad(hidden, block), _pad(target, block)

    # The vocabulary is the outer loop, blocks of positions the inner one. A chunk of the table is
    # then read (and on several devices gathered) once, not once for each block, and in the backward
    # pass its gradient is complete when the inner loop ends. `scan_layers` is the outer loop: it
    # gathers a chunk at a time, as it does a layer.
    def vocabulary_chunk(sums, rows, first):
        def iteration(k, sums):
            running_max, running_sum, at_target, mean = (_slice(each, k, block) for each in sums)
            logits = chunk_logits(config, rows, _slice(padded_hidden, k, block))
            # A running logsumexp: `running_sum` is the sum of exp(z - running_max) over the chunks
            # so far. If a chunk has a larger logit, the sum is scaled down to the new maximum.
            new_max = jnp.maximum(running_max, jnp.max(logits, axis=-1))
            running_sum = running_sum * jnp.exp(running_max - new_max)
            running_sum += jnp.sum(jnp.exp(logits - new_max[..., None]), axis=-1)
            # Not a gather, since all chunks but one hold no target.
            is_target = _is_target(_slice(padded_target, k, block), first, len(rows))
            at_target += jnp.sum(jnp.where(is_target, logits, 0), axis=-1)
            mean += jnp.sum(logits, axis=-1) / vocabulary
            return tuple(
                lax.dynamic_update_slice_in_dim(whole, part, k * block, axis=1)
                for whole, part in zip(sums, (new_max, running_sum, at_target, mean), strict=True)
            )

        return lax.fori_loop(0, iterations, iteration, sums), None

    zeros = split_examples(jnp.zeros(padded_target.shape, jnp.float32))
    lowest = jnp.full_like(zeros, jnp.finfo(jnp.float32).min)
    chunks, firsts = _chunks(table)
    sums, _ = scan_layers(vocabulary_chunk, (lowest, zeros, zeros, zeros), chunks, firsts)
    running_max, running_sum, at_target, mean = (each[:, : target.shape[1]] for each in sums)
    log_z = running_max + jnp.log(running_sum)
    nll = log_z - (1 - label_smoothing) * at_target - label_smoothing * mean
    nll += z_loss * jnp.square(log_z)
    # Where no iteration came, log Z is -inf, and the loss may be NaN (0 * inf). `where` drops these
    # positions, and no gradient is taken through this line.
    return jnp.where(supervised, nll, 0), log_z


# The backward pass is written by hand, by the formula at the top. JAX cannot reverse-differentiate
# `fori_loop` with a number of iterations that is known only at run time. (In a loop with a fixed
# number, checkpointing each iteration would do.)
def _forward(config, hyperparameters, table, hidden, target, supervised):
    perturbed = any(leaf.perturbed for leaf in jax.tree.leaves(table))  # several, if quantised
    given = jax.tree.map(lambda leaf: leaf.value, (table, hidden, target, supervised))
    nll, log_z = _losses(config, hyperparameters, *given)
    # With symbolic zeros, JAX tells for each argument whether it is differentiated (`perturbed`).
    # The gradient of the table, float32[V, D], takes two gigabytes for PaliGemma and is useless if
    # the table is frozen. The backward pass must know this while it is traced. A bool among the
    # residuals would become a traced array. () and None differ in the pytree structure of the
    # residuals, which is known during tracing.
    table_trains = () if perturbed else None
    return nll, (table_trains, *given, log_z)


def _backward(config, hyperparameters, residuals, dnll):
    label_smoothing, z_loss = hyperparameters
    table_trains, table, hidden, target, supervised, log_z = residuals
    block, iterations = _iterations(supervised)
    vocabulary = table.shape[0]
    dnll = jnp.where(supervised, dnll, 0)
    hidden, target, log_z, dnll = (_pad(each, block) for each in (hidden, target, log_z, dnll))

    def vocabulary_chunk(dhidden_sum, rows, first):
        # Each shard has a copy of the chunk and sums the gradient of its own positions. Devices
        # all-reduce these sums once per chunk. With one copy for all, XLA would all-reduce the
        # gradient in each iteration.
        shard_rows = split_examples(jnp.broadcast_to(rows, (len(hidden), *rows.shape)))

        def iteration(k, gradients):
            dhidden_sum, drows_sum = gradients
            # `chunk_logits` may apply a soft cap. Its vjp propagates dloss/dz through that and to
            # both operands of the product: dhidden = dz @ rows, drows = dz.T @ hidden.
            tile_logits = jax.vmap(functools.partial(chunk_logits, config))
            logits, vjp = jax.vjp(tile_logits, shard_rows, _slice(hidden, k, block))
            log_z_block = _slice(log_z, k, block)[..., None]
            dlogits = jnp.exp(logits - log_z_block) * (1 + 2 * z_loss * log_z_block)
            is_target = _is_target(_slice(target, k, block), first, len(rows))
            dlogits -= jnp.where(is_target, 1 - label_smoothing, 0)
            dlogits -= label_smoothing / vocabulary
            drows, dhidden = vjp(dlogits * _slice(dnll, k, block)[..., None])
            # Every chunk of the vocabulary adds to the gradient of the same positions.
            dhidden = _slice(dhidden_sum, k, block) + dhidden.astype(jnp.float32)
            dhidden_sum = lax.dynamic_update_slice_in_dim(dhidden_sum, dhidden, k * block, axis=1)
            if drows_sum is not None:
                drows_sum += drows.astype(jnp.float32)
            return dhidden_sum, drows_sum

        if table_trains is None:
            return lax.fori_loop(0, iterations, iteration, (dhidden_sum, None))
        zeros = split_examples(jnp.zeros(shard_rows.shape, jnp.float32))
        dhidden_sum, drows = lax.fori_loop(0, iterations, iteration, (dhidden_sum, zeros))
        return dhidden_sum, jnp.sum(drows, axis=0)

    chunks, firsts = _chunks(table)
    dhidden_zero = split_examples(jnp.zeros(hidden.shape, jnp.float32))
    dhidden, dtable = scan_layers(vocabulary_chunk, dhidden_zero, chunks, firsts)
    dhidden = dhidden[:, : supervised.shape[1]].astype(hidden.dtype)
    if dtable is not None:
        dtable = dtable.reshape(table.shape).astype(table.dtype)
    return dtable, dhidden, None, None


negative_log_likelihood.defvjp(_forward, _backward, symbolic_zeros=True)


def _iterations(supervised: jax.Array) -> tuple[int, jax.Array]:
    """Returns the size of a block, and the number of blocks that hold all supervised positions."""
    block = min(POSITIONS, supervised.shape[1])
    most = jnp.max(jnp.sum(supervised, axis=1, dtype=jnp.int32))  # of the shard that has most
    return block, (most + block - 1) // block


def _chunks(table: Any) -> tuple[Any, jax.Array]:
    """Returns the table in chunks [n, V / n, D], and int32[n] the first token of each chunk."""
    rows, width = table.shape
    n = num_chunks(rows, _ROWS)
    return table.reshape(n, -1, width), jnp.arange(n, dtype=jnp.int32) * (rows // n)


def _is_target(target: jax.Array, first: jax.Array, rows: int) -> jax.Array:
    return (target - first)[..., None] == jnp.arange(rows, dtype=jnp.int32)


def _pad(x: jax.Array, multiple: int) -> jax.Array:
    missing = -x.shape[1] % multiple
    return jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2)))


def _slice(x: jax.Array, k: jax.Array, block: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, k * block, block, axis=1)
