"""Chooses tokens greedily and at random in one program: the settings are arrays, not constants.

    sampler = Adjustable().at(settings)             # while a program is traced, one slot at a time
    token = sampler.sample(logits, keys, written)

`Sample` is compiled for each temperature. A server is asked for any temperature, so its programs
take it as an argument, see `slots`. The tokens are those of `Greedy` and `Sample`, bit for bit.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib.decode.samplers import Greedy, Sample, Written, in_nucleus

AXIS = "slots"  # the name of the axis over which programs are mapped


class Settings(NamedTuple):
    """What requests may choose without another program.

    Attributes:
      inverse_temperature: float32[B]; 0: the likeliest token is chosen, as by `Greedy`.
      top_p: float32[B]; 1: all tokens, see `Sample`.
      row: int32[B], the number of the caption, among those that `BestOf` would draw of its image.
    """

    inverse_temperature: Any
    top_p: Any
    row: Any


def settings_of(sampler: Any, row: int) -> Settings:
    """Returns the settings of one image for which `Adjustable` chooses as the sampler does.

    Args:
      sampler: one that `is_adjustable` takes; others ignore settings.
      row: see `Settings`.
    """
    inverse, top_p = np.float32(0), 1.0
    if isinstance(sampler, Sample):
        inverse, top_p = sampler.inverse_temperature, sampler.top_p or 1.0
    return Settings(
        np.full(1, inverse, np.float32), np.full(1, top_p, np.float32), np.full(1, row, np.int32)
    )


def is_adjustable(sampler: Any) -> bool:
    """Returns whether `settings_of` takes it: all but `top_k`, whose k shapes the program."""
    return isinstance(sampler, Greedy) or (isinstance(sampler, Sample) and sampler.top_k is None)


@dataclasses.dataclass(frozen=True)
class Adjustable:
    """A `Sampler` whose settings are given while a program is traced.

    It has to be used under `jax.vmap` over slots, with the axis name `AXIS`.

    Attributes:
      settings: of one slot, as scalars; None outside of programs.
    """

    rows: ClassVar[int] = 1
    random: ClassVar[bool] = True

    settings: Settings | None = None

    def at(self, settings: Settings | None) -> Self:
        """Returns the sampler with these settings; with None, as it is outside of programs."""
        return dataclasses.replace(self, settings=settings)

    def sample(self, logits: jax.Array, keys: jax.Array, written: Written) -> jax.Array:
        """Returns the tokens that `Greedy` or `Sample` chooses. See `Sampler`."""
        assert self.settings is not None
        inverse, top_p, _ = self.settings

        def greedy(logits: jax.Array) -> jax.Array:
            return jnp.argmax(logits, axis=-1)

        def nucleus(logits: jax.Array) -> jax.Array:
            return jnp.where((top_p >= 1) | in_nucleus(logits, top_p), logits, -jnp.inf)

        def drawn(logits: jax.Array) -> jax.Array:
            scaled = logits * inverse
            scaled = jax.lax.cond(_anywhere(top_p < 1), nucleus, lambda x: x, scaled)
            token = jax.vmap(jax.random.categorical)(keys, scaled)
            return jnp.where(inverse > 0, token, greedy(logits))

        # Random numbers for a whole vocabulary take longer than a token of a small model. They are
        # drawn only if some slot needs them. Whether others do changes nothing for a slot.
        return jax.lax.cond(_anywhere(inverse > 0), drawn, greedy, logits)


def _anywhere(condition: jax.Array) -> jax.Array:
    """Returns whether a condition holds in any slot: unlike itself, it is the same in all slots."""
    return jax.lax.pmax(condition.astype(jnp.int32), AXIS) > 0
