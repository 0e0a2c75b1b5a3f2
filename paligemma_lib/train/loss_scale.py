"""Scales the loss so that gradients do not underflow float16 (arXiv 1710.03740).

scale = first_scale(config)                                 # 32768 with float16, else 1
changed = next_scale(config, good, scale, good_steps)       # after each step

The scale is halved after a step whose gradients overflow, and doubled after many that do not. A
power of two changes no bit of a gradient that neither under- nor overflows.
"""

import jax
import jax.numpy as jnp

from paligemma_lib.model.variants import PaliGemmaConfig

_FIRST_SCALE = 2.0**15
_GOOD_STEPS = 1000  # successive good steps after which the loss scale doubles
_LARGEST_SCALE = 2.0**24


def first_scale(config: PaliGemmaConfig) -> float:
    """Returns the loss scale of the first step."""
    return _FIRST_SCALE if config.dtype == "float16" else 1.0


def next_scale(
    config: PaliGemmaConfig, good: jax.Array, scale: jax.Array, good_steps: jax.Array
) -> dict[str, jax.Array]:
    """Returns the loss scale: halved after a bad step, doubled after many good ones."""
    if config.dtype != "float16":
        return {"loss_scale": scale, "good_steps": good_steps}
    good_steps = jnp.where(good, good_steps + 1, 0)
    doubled = jnp.minimum(scale * 2, _LARGEST_SCALE)
    grown = jnp.where(good_steps == _GOOD_STEPS, doubled, scale)
    return {
        "loss_scale": jnp.where(good, grown, jnp.maximum(scale / 2, 1.0)),
        "good_steps": jnp.where(good_steps == _GOOD_STEPS, 0, good_steps),
    }
