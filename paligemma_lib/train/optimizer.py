"""Makes optimizers by name, with a learning rate schedule.

    optimizer = make_optimizer("adamw", learning_rate=5e-5, total_steps=1200, warmup_steps=60)

The gradient transformation does not apply the learning rate: the train step multiplies the update
by it. The train step applies the transformation to one array at a time. So an array that starts to
train later has fresh state and its own bias correction.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

from paligemma_lib.runtime.bounds import real, whole
from paligemma_lib.train.averaging import Averaged, moved, with_average

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
      ema: decay of the moving average that is kept of each array, see `averaging`; 0: none.
    """

    transform: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    weight_decay: float
    clip_norm: float | None
    ema: float = 0.0

    def init(self, part: jax.Array) -> Any:
        """Returns the state of an array that begins to train."""
        inner = self.transform.init(part)
        return with_average(inner, part) if self.ema else inner

    def update(
        self, gradient: jax.Array, state: Any, part: jax.Array, rate: jax.Array, decay: float
    ) -> tuple[jax.Array, Any]:
        """Returns an array and its state after a step of this rate and weight decay."""
        inner = state.inner if isinstance(state, Averaged) else state
        with jax.numpy_dtype_promotion("standard"):  # as optax expects
            change, inner = self.transform.update(gradient, inner, part)
        part = part - rate * (change + decay * part)
        if isinstance(state, Averaged):
            return part, moved(state, inner, part, self.ema)
        return part, inner


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
    ema: float = 0.0,
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
      ema: see `Optimizer`.

    Raises:
      ValueError: an argument is out of range.
    """
    _check("name", name, name in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
    _check("schedule", schedule, schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
    learning_rate = real("make_optimizer: learning_rate", learning_rate, above=0)
    total_steps = whole("make_optimizer: total_steps", total_steps, 1)
    warmup_steps = whole("make_optimizer: warmup_steps", warmup_steps, 0, total_steps)
    weight_decay = real("make_optimizer: weight_decay", weight_decay, least=0)
    if clip_norm is not None:
        clip_norm = real("make_optimizer: clip_norm", clip_norm, above=0)
    for decay, value in (("b1", b1), ("b2", b2), ("ema", ema)):
        real(f"make_optimizer: {decay}", value, least=0, below=1)
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

    return Optimizer(transform, rate, weight_decay, clip_norm, ema)


def _check(name: str, value: object, fine: bool, expected: str) -> None:
    if not fine:
        raise ValueError(f"make_optimizer: {name}={value!r}, expected {expected}")
