"""Keeps a moving average of what trains, in the optimizer state of each part.

state = with_average(inner, part)
state = moved(state, inner, part, decay=0.999)          # after each step
average_of(state, part)                                 # the part itself, if none is kept

The average follows the parameters at the beginning, and forgets where they began: after n steps its
decay is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Averaged(NamedTuple):
    """The optimizer state of a part, with its average.

    Attributes:
      inner: the state of the gradient transformation.
      mean: float32, of the part's shape.
      steps: int32[], number of steps in the average.
    """

    inner: Any
    mean: jax.Array
    steps: jax.Array


def with_average(inner: Any, part: jax.Array) -> Averaged:
    """Returns a state whose average is the part, as a copy: a step may donate both."""
    return Averaged(inner, jnp.copy(part), jnp.zeros((), jnp.int32))


def moved(state: Averaged, inner: Any, part: jax.Array, decay: float) -> Averaged:
    """Returns the state after a step, given the new inner state and the new part."""
    number = state.steps.astype(jnp.float32) + 1
    share = jnp.minimum(decay, (1 + number) / (10 + number))
    return Averaged(inner, share * state.mean + (1 - share) * part, state.steps + 1)


def average_of(state: Any, part: jax.Array) -> jax.Array:
    """Returns the average that a state keeps, or the part."""
    return state.mean if isinstance(state, Averaged) else part
