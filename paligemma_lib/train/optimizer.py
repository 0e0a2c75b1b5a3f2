"""Makes optimizers by name, with a learning rate schedule.

    optimizer = make_optimizer("adamw", learning_rate=5e-5, total_steps=1200, warmup_steps=60)

The gradient transformation does not apply the learning rate: the train step multiplies the update
by it. The train step applies the transformation to one array at a time. So an array that starts to
train later has fresh state and its own bias correction.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

Name = Literal["sgd", "momentum", "adamw", "adafactor"]
Schedule = Literal["constant", "cosine", "linear"]

OPTIMIZERS: tuple[str, ...] = get_args(Name)
SCHEDULES: tuple[str, ...] = get_args(Schedule)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A gradient transformation with learning rate, weight decay and clipping.

    Attributes:
      transform: maps the gradient of one array to its update, before the learning rate.
      schedule: maps the index of a step, int32[], to its learning rate, float32[].
      weight_decay: each step subtracts this share of a weight, times the learning rate (arXiv
        1711.05101). Biases and scales do not decay.
      clip_norm: largest global norm of all gradients; None: no clipping.
    """

    transform: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    weight_decay: float
    clip_norm: float | None


def make_optimizer(
    name: Name,
    *,
    learning_rate: float,
    total_steps: int,
    schedule: Schedule = "cosine",
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    clip_norm: float | None = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
) -> Optimizer:
    """Makes an optimizer.

    Args:
      name: "sgd"; "momentum", which keeps a running sum of gradients; "adamw" (arXiv 1711.05101);
        or "adafactor" (arXiv 1804.04235), which keeps only statistics of rows and columns.
      learning_rate: peak of the learning rate.
      total_steps: step at which "cosine" and "linear" reach 0.
      schedule: shape of the learning rate after the warm-up.
      warmup_steps: number of steps in which the rate rises linearly from 0.
      weight_decay: see `Optimizer`.
      clip_norm: see `Optimizer`.
      b1: decay rate of the sum or mean of gradients, for "momentum" and "adamw".
      b2: decay rate of the mean of squared gradients, for "adamw".

    Raises:
      ValueError: an argument is out of range.
    """
    _check("name", name, name in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
    _check("schedule", schedule, schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
    _check("learning_rate", learning_rate, 0 < learning_rate < math.inf, "a positive number")
    _check("total_steps", total_steps, total_steps > 0, "a positive number")
    _check("warmup_steps", warmup_steps, 0 <= warmup_steps <= total_steps, "0 to total_steps")
    _check("weight_decay", weight_decay, 0 <= weight_decay < math.inf, "0 or more")
    _check("clip_norm", clip_norm, clip_norm is None or clip_norm > 0, "None or a positive number")
    transform = {
        "sgd": lambda: optax.identity(),
        "momentum": lambda: optax.trace(decay=b1),
        "adamw": lambda: optax.scale_by_adam(b1, b2),
        # The second transformation limits the root mean square of each array's update to 1.
        "adafactor": lambda: optax.chain(
            optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)
        ),
    }[name]()

    def rate(step: jax.Array) -> jax.Array:
        # `step` counts from 0. With 4 steps of warm-up and a peak of 1, the rates are 1/4, 2/4,
        # 3/4, 1: the first step would have no effect at a rate of 0.
        done = step.astype(jnp.float32) + 1
        rising = jnp.minimum(1.0, done / max(1, warmup_steps))
        # 1 during the warm-up, so `falling` is 1; then falls to 0 at `total_steps`.
        left = jnp.clip((total_steps - step) / max(1, total_steps - warmup_steps), 0.0, 1.0)
        falling = {
            "constant": jnp.ones_like(left),
            "cosine": 0.5 * (1 - jnp.cos(jnp.pi * left)),
            "linear": left,
        }[schedule]
        return learning_rate * rising * falling

    return Optimizer(transform, rate, weight_decay, clip_norm)


def _check(name: str, value: object, fine: bool, expected: str) -> None:
    if not fine:
        raise ValueError(f"make_optimizer: {name}={value!r}, expected {expected}")
