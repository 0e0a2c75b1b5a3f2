"""Defines samplers, which choose the next token: greedy, at random, and best of several captions.

    Greedy()
    Sample(temperature=0.8, top_k=40, top_p=0.95)
    BestOf(5, Sample(top_p=0.9))
    keys = image_keys(jax.random.key(0), range(8))    # what is random for each of eight images

Samplers and `Beam` are frozen dataclasses, and the token loop is compiled once for each of them.
Any object with the attributes and methods of `Sampler` is a sampler: `docs/extending.md` has one
that chooses among typical tokens. `repetition` has processors of logits, for any sampler.

Sources: top-k (arXiv 1805.04833), nucleus sampling (arXiv 1904.09751).
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib.runtime.bounds import real, whole

MAX_ROWS = 1024  # most captions of an image at a time


class Written(NamedTuple):
    """The tokens that rows have so far.

    Attributes:
      tokens: int32[N, M], without the prompt; PAD from index `length` on.
      length: int32[], number of tokens of each row. It is traced, so a slice that depends on it
        needs `jax.lax.dynamic_slice` or a mask.
    """

    tokens: jax.Array
    length: jax.Array


class Sampler(Protocol):
    """Chooses the next token of each row.

    A sampler is a static argument of compiled programs. So it must be hashable, and two samplers
    with the same settings must be equal, as with a frozen dataclass. `sample` runs under jit.

    Attributes:
      rows: number of captions that are generated for each image; the likeliest comes first.
      random: whether `sample` uses its keys.
    """

    @property
    def rows(self) -> int: ...

    @property
    def random(self) -> bool: ...

    def sample(self, logits: jax.Array, keys: jax.Array, written: Written) -> jax.Array:
        """Returns the next tokens, int32[N].

        Args:
          logits: float32[N, V]; -inf for tokens that must not be chosen.
          keys: key[N], the random key of each row for this token.
          written: the tokens that each row has so far.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Chooses the likeliest token; of equally likely ones, that with the lowest id."""

    rows: ClassVar[int] = 1
    random: ClassVar[bool] = False

    def sample(self, logits: jax.Array, keys: jax.Array, written: Written) -> jax.Array:
        """Returns the likeliest tokens; only `logits` are used. See `Sampler`."""
        return jnp.argmax(logits, axis=-1)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draws a token from the model's distribution, after these changes to it, in this order.

    Attributes:
      temperature: divides the logits; below 1, likely tokens become likelier. 0: the likeliest
        token is chosen, as by `Greedy`.
      top_k: keeps only the k likeliest tokens; None: all.
      top_p: keeps the smallest set of likeliest tokens whose probabilities sum to at least this,
        and tokens that are as likely as the least likely of the set; None: all.
    """

    rows: ClassVar[int] = 1

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        set_field = functools.partial(object.__setattr__, self)  # the dataclass is frozen
        temperature = real("Sample: temperature", self.temperature, least=0)
        # float32 logits divided by less or more would be infinite, or all the same.
        if temperature:
            real("Sample: temperature", temperature, least=1e-6, most=1e6)
        set_field("temperature", temperature)
        if self.top_k is not None:
            set_field("top_k", whole("Sample: top_k", self.top_k, 1))
        if self.top_p is not None:
            set_field("top_p", real("Sample: top_p", self.top_p, above=0, most=1))

    @property
    def random(self) -> bool:
        """Whether keys are used, see `Sampler`: at a temperature above 0."""
        return self.temperature > 0

    @property
    def inverse_temperature(self) -> np.float32:
        """1 / temperature, by which logits are multiplied; 0 for a temperature of 0."""
        return np.float32(1 / self.temperature if self.temperature else 0)

    def sample(self, logits: jax.Array, keys: jax.Array, written: Written) -> jax.Array:
        """Returns tokens that are drawn at random. See `Sampler`."""
        if not self.temperature:
            return jnp.argmax(logits, axis=-1)
        # Temperature comes first, as in Hugging Face transformers, since it changes which tokens
        # the nucleus holds. After `top_k`, columns are ranks, and `ids` maps ranks to token ids.
        logits, ids = logits * self.inverse_temperature, None
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits, ids = jax.lax.top_k(logits, self.top_k)
        if self.top_p is not None and self.top_p < 1:
            logits = jnp.where(in_nucleus(logits, self.top_p), logits, -jnp.inf)
        drawn = jax.vmap(jax.random.categorical)(keys, logits)
        return drawn if ids is None else jnp.take_along_axis(ids, drawn[:, None], axis=1)[:, 0]


@dataclasses.dataclass(frozen=True)
class BestOf:
    """Draws several captions of each image; the likeliest under the model comes first.

    Attributes:
      rows: number of captions of each image.
      sampler: draws each of their tokens.
    """

    rows: int
    sampler: Sampler = Sample()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", whole("BestOf: rows", self.rows, 1, MAX_ROWS))
        if self.rows > 1 and not getattr(self.sampler, "random", False):
            raise ValueError(
                f"BestOf: sampler={self.sampler}, expected one that draws at random: this one "
                f"would choose the same caption {self.rows} times"
            )

    @property
    def random(self) -> bool:
        """Whether keys are used, see `Sampler`."""
        return self.sampler.random

    def sample(self, logits: jax.Array, keys: jax.Array, written: Written) -> jax.Array:
        """Returns the tokens that `sampler` draws. See `Sampler`."""
        return self.sampler.sample(logits, keys, written)


def image_keys(key: jax.Array, numbers: Iterable[int]) -> jax.Array:
    """Returns key[B], one key for each number: it depends only on `key` and that number.

    Args:
      key: a key of `jax.random.key`, or of the older `jax.random.PRNGKey`.
      numbers: numbers of the images, such as their indices in the data set, below 2**32.

    Raises:
      ValueError: a number is out of range.
    """
    if not isinstance(key, jax.Array | np.ndarray):
        raise ValueError(f"image_keys: key={key!r:.60}, expected a key such as jax.random.key(0)")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)  # a raw key, uint32[2]
    whole_numbers = [whole("image_keys: number", each, 0, 2**32 - 1) for each in numbers]
    return _image_keys(key, np.array(whole_numbers, np.uint32))


@jax.jit
def _image_keys(key: jax.Array, numbers: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def in_nucleus(logits: jax.Array, top_p: float) -> jax.Array:
    """Returns which tokens are in the nucleus: the likeliest that together reach `top_p`.

    The lowest probability in the nucleus is found by bisection, without sorting the vocabulary.
    Non-negative float32 numbers are ordered like their bit patterns read as int32, and those from 0
    to 1 have fewer than 2**30 patterns.

    Args:
      logits: float32[..., V].
      top_p: above 0 and below 1.

    Returns:
      bool[..., V].
    """
    probability = jax.nn.softmax(logits, axis=-1)
    bits = jax.lax.bitcast_convert_type(probability, jnp.int32)

    def halve(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # Invariant: the tokens with bits >= low have at least the mass `top_p`; those with bits >=
        # high have less.
        low, high = bounds
        middle = (low + high) // 2
        mass = jnp.sum(probability, axis=-1, keepdims=True, where=bits >= middle)
        reached = mass >= top_p
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

    # 1.0 has the bits 0x3F800000, below 2**30. So 30 halvings leave high = low + 1: an exact
    # threshold, after 30 sums over the vocabulary. Sorting 257,152 probabilities for every token
    # takes longer on accelerators.
    low = jnp.zeros_like(bits[..., :1])
    above_one = jax.lax.bitcast_convert_type(jnp.float32(1), jnp.int32) + 1
    lowest, _ = jax.lax.fori_loop(0, 30, halve, (low, jnp.full_like(low, above_one)))
    return bits >= lowest
