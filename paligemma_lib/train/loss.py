"""Computes the loss of supervised tokens.

    nll, weight = token_losses(config, params, batch)       # float32[shards, M] each
    loss = jnp.sum(nll * weight) / jnp.sum(weight)          # something must be supervised

Supervised positions are moved to the front, and logits are computed for them alone: a batch of
short captions costs less. `likelihood` computes them without holding all logits.
"""

from typing import Any

import jax
import jax.numpy as jnp

from paligemma_lib.batch import source_positions
from paligemma_lib.model import hidden_states
from paligemma_lib.model.low_rank import Dropout
from paligemma_lib.model.partitioning import num_shards, split_examples
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.train.likelihood import negative_log_likelihood
from paligemma_lib.train.loss_options import checked_loss


def token_losses(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    batch: dict[str, jax.Array],
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    dropout: Dropout | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns the loss and the weight of every supervised token.

    Args:
      config: the model.
      params: nested dict of parameters, see `model.hidden_states`.
      batch: arrays of the contract in `paligemma_lib.batch`.
      label_smoothing: the share of the target distribution that is spread evenly over all
        tokens; the target token gets the rest in addition (arXiv 1512.00567).
      z_loss: weight of log(Z)**2, which keeps the sum Z of all exponentials near 1 (2204.02311).
      dropout: of the inputs of adapters.

    Returns:
      float32[shards, M] losses and float32[shards, M] weights, see `in_place`. A shard is the share
      of the batch that one device holds: M = (B / shards) * T positions, supervised ones first.
      Both are 0 where nothing is supervised.

    Raises:
      ValueError: label_smoothing or z_loss is out of range.
    """
    text, weight = batch["text"], batch["loss_weight"].astype(jnp.float32)
    inputs = batch["image"], text, batch["segment"], batch["position"]
    hidden = hidden_states(config, params, *inputs, dropout=dropout)
    # [B, T] becomes [shards, M]. Everything below moves within a shard, and crosses no devices.
    rows, length = text.shape
    shards = num_shards()
    shape = (shards, rows // shards * length)
    # Supervised positions first, in their order: False sorts before True.
    order = jnp.argsort(split_examples(weight.reshape(shape) == 0), axis=1, stable=True)
    target = jnp.take_along_axis(text.reshape(shape), order, axis=1)
    weight = jnp.take_along_axis(weight.reshape(shape), order, axis=1)
    # `source_positions` gives the index along T at which the target is predicted. Adding
    # `first_position`, the index at which its row begins, makes it an index along M.
    first_position = ((jnp.arange(rows) % (rows // shards)) * length)[:, None]
    source = (first_position + source_positions(batch["segment"])).reshape(shape)
    source = jnp.take_along_axis(source, order, axis=1)
    hidden = split_examples(hidden.reshape(*shape, -1))
    hidden = jnp.take_along_axis(hidden, source[..., None], axis=1)
    table = params["llm"]["embedder"]["input_embedding"]
    hyperparameters = checked_loss("token_losses", label_smoothing, z_loss)
    nll = negative_log_likelihood(config, hyperparameters, table, hidden, target, weight != 0)
    return nll, weight


def in_place(values: jax.Array, loss_weight: jax.Array) -> jax.Array:
    """Puts what `token_losses` returns where it belongs in the batch.

    Args:
      values: float32[shards, M], one for each token, in the order of `token_losses`.
      loss_weight: float32[B, T] of the batch.

    Returns:
      float32[B, T]. With 2 examples of 3 positions on one device:

          supervised [0 1 1 0 0 1]    order [1 2 5 0 3 4]    values [a b c 0 0 0]
          result [[0 a b] [0 0 c]]
    """
    order = jnp.argsort(loss_weight.reshape(values.shape) == 0, axis=1, stable=True)
    placed = jax.vmap(lambda row, at: jnp.zeros_like(row).at[at].set(row))(values, order)
    return placed.reshape(loss_weight.shape)
