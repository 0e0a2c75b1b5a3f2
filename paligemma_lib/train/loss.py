"""The loss: negative log-likelihood of the supervised tokens, without ever holding all logits.

    nll, weight = token_losses(config, params, batch)       # float32[parts, M] each
    loss = jnp.sum(nll * weight) / jnp.sum(weight)

Supervised positions are moved to the front, and logits are computed for them alone, in chunks: a
few hundred positions by some ten thousand tokens of the vocabulary, once forward and once more
backward. How many chunks are computed depends on how many positions are supervised, so a batch of
short captions costs less. All of it is float32, whatever the activations are.

For one position with logits z[v], target t, smoothing s over V tokens and z-loss weight c, the loss
and its gradient are, with log Z = logsumexp(z) and the softmax p[v] = exp(z[v] - log Z),

    loss       = log Z - (1 - s) z[t] - s mean(z) + c (log Z)**2
    dloss/dz_v = p[v] (1 + 2 c log Z) - (1 - s) [v = t] - s / V

since d log Z / dz_v = p[v]. The backward pass needs log Z and the logits; it keeps the first, one
number a position, and computes the second again, chunk by chunk, instead of keeping [M, V].
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from paligemma_lib.batch import source_positions
from paligemma_lib.model import hidden_states
from paligemma_lib.model.partitioning import num_parts, split_examples
from paligemma_lib.model.stack import scan_layers
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.model.vocabulary import chunk_logits, num_chunks

# Logits that exist at a time in each part: 256 x 32,768 float32 are 32 MiB.
POSITIONS = 256
_ROWS = 32_768  # tokens of the vocabulary


def token_losses(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    batch: dict[str, jax.Array],
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Returns the loss and the weight of every supervised token.

    Args:
      config: the model.
      params: nested dict of parameters, see `model.hidden_states`.
      batch: of the contract in `paligemma_lib.batch`.
      label_smoothing: share of the probability that the target leaves to all tokens alike
        (arXiv 1512.00567).
      z_loss: weight of log(Z)**2, which keeps the sum Z of all exponentials near 1 (arXiv
        2204.02311, section 5).

    Returns:
      float32[parts, M] negative log-likelihoods and float32[parts, M] weights: for each of the
      parts into which examples are split over devices its own M = B / parts * T positions, in
      another order than in the batch. Both are 0 where nothing is supervised.
    """
    text, weight = batch["text"], batch["loss_weight"].astype(jnp.float32)
    hidden = hidden_states(
        config, params, batch["image"], text, batch["segment"], batch["position"]
    )
    # [B, T] becomes [parts, M]: a part is what one device holds, and everything below moves within
    # a part, so that no hidden state crosses devices.
    rows, length = text.shape
    parts = num_parts()
    shape = (parts, rows // parts * length)
    # Supervised positions first, in their order: False sorts before True.
    order = jnp.argsort(split_examples(weight.reshape(shape) == 0), axis=1, stable=True)
    target = jnp.take_along_axis(text.reshape(shape), order, axis=1)
    weight = jnp.take_along_axis(weight.reshape(shape), order, axis=1)
    # Each target is predicted from the hidden state of another position of its own row.
    first_position = (jnp.arange(rows) % (rows // parts) * length)[:, None]
    source = (first_position + source_positions(batch["segment"])).reshape(shape)
    source = jnp.take_along_axis(source, order, axis=1)
    hidden = split_examples(hidden.reshape(*shape, -1))
    hidden = jnp.take_along_axis(hidden, source[..., None], axis=1)
    table = params["llm"]["embedder"]["input_embedding"]
    extra = (label_smoothing, z_loss)
    nll = negative_log_likelihood(config, extra, table, hidden, target, weight > 0)
    return nll, weight


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def negative_log_likelihood(
    config: PaliGemmaConfig,
    extra: tuple[float, float],
    table: jax.Array,
    hidden: jax.Array,
    target: jax.Array,
    supervised: jax.Array,
) -> jax.Array:
    """Returns the loss of predicting each target, float32[parts, M].

    Args:
      config: the model.
      extra: `label_smoothing` and `z_loss`, see `token_losses`.
      table: embeddings [V, D] in any float type.
      hidden: dtype[parts, M, D] as `model.hidden_states` returns it.
      target: int32[parts, M] tokens.
      supervised: bool[parts, M], in each part all true ones before all false ones; the loss of the
        others is 0.
    """
    return _losses(config, extra, table, hidden, target, supervised)[0]


def _losses(config, extra, table, hidden, target, supervised):
    """The loss, and log Z for the backward pass; float32[parts, M] each."""
    label_smoothing, z_loss = extra
    count, turns = _turns(supervised)
    vocabulary = len(table)
    padded_hidden, padded_target = _pad(hidden, count), _pad(target, count)

    # The vocabulary is the outer loop and positions are the inner one. A chunk of the table is then
    # read (and on several devices gathered) once, not once for each chunk of positions, and in the
    # backward pass its gradient is complete when the inner loop ends.
    def rows_of_vocabulary(sums, rows, first):
        def turn(k, sums):
            top, total, at_target, mean = (_slice(each, k, count) for each in sums)
            logits = chunk_logits(config, rows, _slice(padded_hidden, k, count))
            # A running logsumexp: `total` is the sum of exp(z - top) over the chunks seen so far.
            # When a larger logit comes, what was summed is scaled down to the new top.
            new_top = jnp.maximum(top, jnp.max(logits, axis=-1))
            total = total * jnp.exp(top - new_top)
            total += jnp.sum(jnp.exp(logits - new_top[..., None]), axis=-1)
            # A comparison and a sum instead of a gather: the target is in one of the chunks only.
            is_target = _is_target(_slice(padded_target, k, count), first, len(rows))
            at_target += jnp.sum(jnp.where(is_target, logits, 0), axis=-1)
            mean += jnp.sum(logits, axis=-1) / vocabulary
            return tuple(
                lax.dynamic_update_slice_in_dim(whole, part, k * count, axis=1)
                for whole, part in zip(sums, (new_top, total, at_target, mean), strict=True)
            )

        return lax.fori_loop(0, turns, turn, sums), None

    zeros = split_examples(jnp.zeros(padded_target.shape, jnp.float32))
    lowest = jnp.full_like(zeros, jnp.finfo(jnp.float32).min)
    chunks, firsts = _chunks(table)
    sums, _ = scan_layers(rows_of_vocabulary, (lowest, zeros, zeros, zeros), chunks, firsts)
    top, total, at_target, mean = (each[:, : target.shape[1]] for each in sums)
    log_total = top + jnp.log(total)
    nll = log_total - (1 - label_smoothing) * at_target - label_smoothing * mean
    nll += z_loss * jnp.square(log_total)
    # Where no turn came, log(0) is -inf; `where` drops it, and no gradient is taken through it.
    return jnp.where(supervised, nll, 0), log_total


# JAX would differentiate `_losses` by keeping every chunk's logits: all [M, V] of them, which is
# what chunks are to avoid. It also refuses loops whose number of turns is known only at run time,
# as `turns` is. So the backward pass is written by hand, by the formula at the top.
def _forward(config, extra, table, hidden, target, supervised):
    nll, log_total = _losses(
        config, extra, table.value, hidden.value, target.value, supervised.value
    )
    # With symbolic zeros, JAX says of each argument whether anything is differentiated with respect
    # to it (`perturbed`). The table's gradient is [V, D], a gigabyte for PaliGemma, and for a
    # frozen table nobody wants it. A bool would be traced; () and None differ in the form of what
    # is saved, which is known while the backward pass is traced.
    table_trains = () if table.perturbed else None
    saved = (table.value, hidden.value, target.value, supervised.value, log_total)
    return nll, (table_trains, *saved)


def _backward(config, extra, saved, nll_gradient):
    label_smoothing, z_loss = extra
    table_trains, table, hidden, target, supervised, log_total = saved
    count, turns = _turns(supervised)
    vocabulary = len(table)
    nll_gradient = jnp.where(supervised, nll_gradient, 0)
    hidden, target, log_total, nll_gradient = (
        _pad(each, count) for each in (hidden, target, log_total, nll_gradient)
    )

    def rows_of_vocabulary(hidden_gradient, rows, first):
        def turn(k, gradients):
            hidden_gradient, rows_gradient = gradients
            # `chunk_logits` may cap and scale; its own derivative takes dloss/dz on to both factors
            # of the product: to hidden as dz @ rows, to rows as dz.T @ hidden.
            logits, pull_back = jax.vjp(
                lambda hidden, rows: chunk_logits(config, rows, hidden),
                _slice(hidden, k, count),
                rows,
            )
            log_sum = _slice(log_total, k, count)[..., None]
            by_logits = jnp.exp(logits - log_sum) * (1 + 2 * z_loss * log_sum)
            is_target = _is_target(_slice(target, k, count), first, len(rows))
            by_logits -= jnp.where(is_target, 1 - label_smoothing, 0)
            by_logits -= label_smoothing / vocabulary
            by_hidden, by_rows = pull_back(by_logits * _slice(nll_gradient, k, count)[..., None])
            # Every chunk of the vocabulary adds to the gradient of the same positions.
            by_hidden = _slice(hidden_gradient, k, count) + by_hidden.astype(jnp.float32)
            hidden_gradient = lax.dynamic_update_slice_in_dim(
                hidden_gradient, by_hidden, k * count, axis=1
            )
            if rows_gradient is not None:
                rows_gradient += by_rows.astype(jnp.float32)
            return hidden_gradient, rows_gradient

        none = None if table_trains is None else jnp.zeros(rows.shape, jnp.float32)
        return lax.fori_loop(0, turns, turn, (hidden_gradient, none))

    chunks, firsts = _chunks(table)
    none = split_examples(jnp.zeros(hidden.shape, jnp.float32))
    by_hidden, by_table = scan_layers(rows_of_vocabulary, none, chunks, firsts)
    by_hidden = by_hidden[:, : supervised.shape[1]].astype(hidden.dtype)
    if by_table is not None:
        by_table = by_table.reshape(table.shape).astype(table.dtype)
    return by_table, by_hidden, None, None


negative_log_likelihood.defvjp(_forward, _backward, symbolic_zeros=True)


def _turns(supervised: jax.Array) -> tuple[int, jax.Array]:
    """How many positions to take at a time, and how often until all supervised ones were taken."""
    count = min(POSITIONS, supervised.shape[1])
    most = jnp.max(jnp.sum(supervised, axis=1, dtype=jnp.int32))  # the same loop in every part
    return count, (most + count - 1) // count


def _chunks(table: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The vocabulary in chunks [n, V / n, D], and int32[n] the first token of each."""
    rows, width = table.shape
    n = num_chunks(rows, _ROWS)
    return table.reshape(n, -1, width), jnp.arange(n, dtype=jnp.int32) * (rows // n)


def _is_target(target: jax.Array, first: jax.Array, rows: int) -> jax.Array:
    return (target - first)[..., None] == jnp.arange(rows, dtype=jnp.int32)


def _pad(x: jax.Array, multiple: int) -> jax.Array:
    missing = -x.shape[1] % multiple
    return jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2)))


def _slice(x: jax.Array, k: jax.Array, count: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, k * count, count, axis=1)
