"""Ways to choose the next token: the likeliest, one at random, or several random captions at once.

    Greedy()
    Sample(temperature=0.8, top_k=40, top_p=0.95)
    BestOf(5, Sample(top_p=0.9))
    keys = image_keys(jax.random.key(0), range(8))    # what is random for each of eight images

Samplers and `Beam` are small frozen objects; the token loop is compiled for one of them. Whatever
has the methods of `Sampler` is one: `docs/extending.md` bans repeated trigrams in twenty lines.

Sources: top-k (arXiv 1805.04833), nucleus sampling (arXiv 1904.09751).
"""

import dataclasses
from collections.abc import Iterable
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Written(NamedTuple):
    """What has been written so far.

    Attributes:
      tokens: int32[N, M], without the prompt; PAD from `length` on.
      length: int32[], how many tokens each row has; a traced value, so slices want `lax`.
    """

    tokens: jax.Array
    length: jax.Array


class Sampler(Protocol):
    """A way to choose the next token, row by row.

    It has to be hashable and equal to its equals, as a frozen dataclass is: programs are compiled
    for it. `sample` runs under jit.

    Attributes:
      rows: captions that are written of each image; the one that the model finds likeliest wins.
      random: whether `sample` uses its keys.
    """

    @property
    def rows(self) -> int: ...

    @property
    def random(self) -> bool: ...

    def sample(self, logits: jax.Array, keys: jax.Array, written: Written) -> jax.Array:
        """Returns the next tokens, int32[N].

        Args:
          logits: float32[N, V]; -inf for tokens that must not come.
          keys: key[N], each row's own randomness for this token.
          written: what each row has so far.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Takes the likeliest token; of equals, the one with the lowest id."""

    rows: ClassVar[int] = 1
    random: ClassVar[bool] = False

    def sample(self, logits: jax.Array, keys: jax.Array, written: Written) -> jax.Array:
        """See `Sampler`; of the three, only `logits` are used."""
        return jnp.argmax(logits, axis=-1)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draws a token from the model's distribution, sharpened and cut in this order.

    Attributes:
      temperature: divides the logits; below 1, likely tokens become likelier.
      top_k: keeps the k likeliest tokens; None: all.
      top_p: keeps the likeliest tokens that together have at least this probability, and those
        as likely as the last of them; None: all.
    """

    rows: ClassVar[int] = 1
    random: ClassVar[bool] = True

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"Sample: temperature={self.temperature}, expected more than 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"Sample: top_k={self.top_k}, expected at least 1, or None")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"Sample: top_p={self.top_p}, expected 0 < top_p <= 1, or None")

    def sample(self, logits: jax.Array, keys: jax.Array, written: Written) -> jax.Array:
        """See `Sampler`."""
        # Temperature first, as in Hugging Face transformers: it changes which tokens the nucleus
        # holds.
        logits, ids = logits / self.temperature, None
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits, ids = jax.lax.top_k(logits, self.top_k)
        if self.top_p is not None and self.top_p < 1:
            logits = jnp.where(in_nucleus(logits, self.top_p), logits, -jnp.inf)
        drawn = jax.vmap(jax.random.categorical)(keys, logits)
        return drawn if ids is None else jnp.take_along_axis(ids, drawn[:, None], axis=1)[:, 0]


@dataclasses.dataclass(frozen=True)
class BestOf:
    """Draws several captions of each image; the one the model finds likeliest comes first.

    Attributes:
      rows: how many.
      sampler: how each of their tokens is drawn.
    """

    random: ClassVar[bool] = True

    rows: int
    sampler: Sampler = Sample()

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"BestOf: rows={self.rows}, expected at least 1")

    def sample(self, logits: jax.Array, keys: jax.Array, written: Written) -> jax.Array:
        """As `sampler` does."""
        return self.sampler.sample(logits, keys, written)


def image_keys(key: jax.Array, numbers: Iterable[int]) -> jax.Array:
    """Returns key[B]: what is random for an image depends on the key and its number alone."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)  # of the older kind, uint32[2]
    return _image_keys(key, np.fromiter(numbers, np.uint32))


@jax.jit
def _image_keys(key: jax.Array, numbers: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def in_nucleus(logits: jax.Array, top_p: float) -> jax.Array:
    """Which tokens are among the likeliest that together reach the probability `top_p`.

    Finds the lowest probability among them by bisection instead of sorting the vocabulary:
    float32 numbers from 0 to 1 are ordered as their bit patterns are, of which there are 2**30.

    Args:
      logits: float32[..., V].
      top_p: above 0 and below 1.

    Returns:
      bool[..., V].
    """
    probability = jax.nn.softmax(logits, axis=-1)
    bits = jax.lax.bitcast_convert_type(probability, jnp.int32)

    def halve(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds  # what is not below `low` reaches `top_p`; not below `high`, it doesn't
        middle = (low + high) // 2
        mass = jnp.sum(probability, axis=-1, keepdims=True, where=bits >= middle)
        reached = mass >= top_p
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

    # 30 halvings of 2**30 bit patterns find the exact threshold, in 30 sums over the vocabulary. A
    # sort of 257,152 probabilities takes longer on accelerators, for every token.
    low = jnp.zeros_like(bits[..., :1])
    above_one = jax.lax.bitcast_convert_type(jnp.float32(1), jnp.int32) + 1
    lowest, _ = jax.lax.fori_loop(0, 30, halve, (low, jnp.full_like(low, above_one)))
    return bits >= lowest
