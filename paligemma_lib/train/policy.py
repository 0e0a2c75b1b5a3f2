"""Turns rewards of sampled captions into weights of their tokens, for policy gradients.

    advantage = advantages(rewards)                                    # float[B, K] both
    weight = policy_weights(advantage, batch["segment"])
    state, metrics = step(state, {**batch, "loss_weight": weight})

The gradient of the expected reward r of captions c that the model p itself samples is that of

    E[(r - b) log p(c)]

for any baseline b that does not depend on c (REINFORCE). Self-critical training takes the reward of
the model's greedy caption for b (arXiv 1612.00563); here it is the mean reward of the K captions of
an image, as in GRPO (arXiv 2402.03300), which needs no caption more. A train step minimizes
sum(weight * -log p) / sum(|weight|), so the weight of each token of c is its advantage r - b.

A penalty kl * KL(p || p0) keeps the model near its start p0. With d = log p0 - log p of a token,
its estimate exp(d) - d - 1 is never negative, and has the gradient (1 - exp(d)) grad log p. So the
weight becomes r - b - kl * (1 - exp(d)).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.sharding import put_batch, replicated
from paligemma_lib.train.loss import in_place, token_losses

_MOST = 20.0  # nats; exp of it is far from float32's largest number


def advantages(rewards: np.ndarray) -> np.ndarray:
    """Returns rewards minus their mean over the captions of an image, float32[B, K].

    Args:
      rewards: float[B, K], for K captions of each image.

    Raises:
      ValueError: a reward is NaN or infinite.
    """
    rewards = np.asarray(rewards, np.float64)
    if not np.isfinite(rewards).all():
        image, caption = np.argwhere(~np.isfinite(rewards))[0]
        raise ValueError(
            f"the reward of caption {caption} of image {image} is {rewards[image, caption]}, "
            "expected finite numbers"
        )
    return (rewards - rewards.mean(axis=1, keepdims=True)).astype(np.float32)


def policy_weights(advantage: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """Returns the weight of each token, float32[B, T]; below 0 it makes the token less likely.

    Args:
      advantage: float32[B, K], of the captions that are the suffixes of each example.
      segment: int32[B, T] of the batch contract.
    """
    # Segment 0 is the prefix, -1 padding; segment k is caption k - 1.
    of_caption = np.take_along_axis(advantage, np.maximum(segment - 1, 0), axis=1)
    return np.where(segment > 0, of_caption, np.float32(0))


def divergence(logprob: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the estimate of KL(p || p0) of each token, and the factor of its gradient.

    Args:
      logprob, start: float32, log-probabilities of tokens under the model p and under p0.

    Returns:
      exp(d) - d - 1 and 1 - exp(d), in nats.
    """
    d = np.minimum(start - logprob, _MOST)
    return np.exp(d) - d - 1, 1 - np.exp(d)


def make_logprob_step(
    config: PaliGemmaConfig, *, mesh: Mesh
) -> Callable[[dict[str, Any], Mapping[str, np.ndarray]], np.ndarray]:
    """Returns a function `logprobs = step(params, batch)`, float32[B, T] of the global batch.

    The result has the log-probability of each supervised token under the model, in nats; 0 where
    the loss weight is 0. `batch` has NumPy arrays of the contract, this process's share of them.
    """

    def logprobs(params: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
        nll, _ = token_losses(config, params, batch)
        return in_place(-nll, batch["loss_weight"])

    jitted = jax.jit(logprobs, out_shardings=replicated(mesh))

    def step(params: dict[str, Any], batch: Mapping[str, np.ndarray]) -> np.ndarray:
        with jax.set_mesh(mesh):
            return np.asarray(jitted(params, put_batch(mesh, batch)))

    return step
