"""The FLOPs that the mathematics needs: matrix products, nothing done again to save memory.

print(told("a step", of_step(...), seconds, product_rate(...)))
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from paligemma_lib import decode, train
from paligemma_lib.decode import programs
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.planning.flops import matmul_flops
from paligemma_lib.train.likelihood import POSITIONS


def of_step(
    config: PaliGemmaConfig,
    optimizer: train.Optimizer,
    mesh: Mesh,
    state: train.TrainState,
    batch: dict[str, Any],
    supervised: float,
) -> float:
    """Of a training step on one device, with so many supervised positions in its batch."""
    step = train.make_train_step(dataclasses.replace(config, remat="none"), optimizer, mesh=mesh)
    changing = {name: each for name, each in vars(state).items() if name != "frozen"}
    with jax.set_mesh(mesh):
        traced = step.jitted.trace(state.frozen, changing, batch)  # type: ignore[attr-defined]
    # The loss takes supervised positions in blocks.
    return matmul_flops(traced.jaxpr.jaxpr, supervised / min(POSITIONS, batch["text"].size))


def of_prompt(config: PaliGemmaConfig, params: Any, images: Any, prompt: Any, length: Any) -> float:
    """Of reading images and prompts."""
    arrays = (jnp.asarray(images), jnp.asarray(prompt), jnp.asarray(length))
    traced = programs.read_inputs.trace(config, config.dtype, None, params, *arrays)
    return matmul_flops(traced.jaxpr.jaxpr)


def of_tokens(config: PaliGemmaConfig, params: Any, state: decode.State, count: int) -> float:
    """Of so many tokens in every row, after the first."""
    traced = programs.extend_state.trace(config, params, state, jnp.int32(count))
    return matmul_flops(traced.jaxpr.jaxpr, count)


def told(name: str, flops: float, seconds: float, rate: float) -> str:
    """Says which share of the rate of a product, in FLOP/s, these FLOPs in these seconds are."""
    return (
        f"{name} needs {flops / 1e9:.0f} GFLOP, {flops / seconds / rate:.2f} of the "
        f"{rate / 1e9:.0f} GFLOP/s of a product (0.85 wanted)"
    )
