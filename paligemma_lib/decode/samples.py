"""Captions in the making whose rows never change places: greedy and random decoding.

    samples = Samples.empty(BestOf(3), images, max_tokens)
    samples, _ = samples.advance(choice)                        # one more token in every row
    samples.done(), samples.hypotheses()

`beam.Beams` has the same methods, and the token loop works on either.
"""

import dataclasses
import functools
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

from paligemma_lib.batch import EOS, PAD
from paligemma_lib.decode.samplers import Sampler, Written


class Choice(NamedTuple):
    """From what the next token is chosen, R being 1 while all rows of an image are the same.

    Attributes:
      logits: float32[B, R, V].
      allowed: the same, with -inf for tokens that must not come.
      step: int32[], how many tokens each row has already.
      keys: key[B], the images' own randomness.
    """

    logits: jax.Array
    allowed: jax.Array
    step: jax.Array
    keys: jax.Array

    def normalizer(self) -> jax.Array:
        """float32[B, R]; logits less this are the model's own log-probabilities."""
        return jax.nn.logsumexp(self.logits, axis=-1)


class Hypotheses(NamedTuple):
    """Captions of each image, best first.

    Attributes:
      tokens: int32[B, N, M], with EOS if it ended, then PAD.
      logprobs: float32[B, N, M], the model's own log-probability of each token; 0 after the end.
        Neither temperature nor what was cut or banned changes it.
      score: float32[B, N], by which they are ordered; -inf where there are fewer than N.
    """

    tokens: jax.Array
    logprobs: jax.Array
    score: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tokens", "logprobs", "ended"),
    meta_fields=("sampler",),
)
@dataclasses.dataclass(frozen=True)
class Samples:
    """What has been written so far.

    Attributes:
      sampler: how tokens are chosen.
      tokens: int32[B, R, M].
      logprobs: float32[B, R, M].
      ended: bool[B, R].
    """

    sampler: Sampler
    tokens: jax.Array
    logprobs: jax.Array
    ended: jax.Array

    @classmethod
    def empty(cls, sampler: Sampler, images: int, max_tokens: int) -> Self:
        """Nothing written yet, with space for `max_tokens` tokens."""
        tokens = jnp.full((images, sampler.rows, max_tokens), PAD, jnp.int32)
        ended = jnp.zeros(tokens.shape[:2], bool)
        return cls(sampler, tokens, jnp.zeros(tokens.shape), ended)

    def advance(self, choice: Choice) -> tuple[Self, None]:
        """Adds a token to every row, PAD to those that have ended."""
        b, r = self.ended.shape
        fold = jax.random.fold_in
        # The key of a token depends on its image, its row and its step: not on the batch, so a
        # caption is the same whatever else is captioned with it.
        keys = jax.vmap(jax.vmap(fold, (None, 0)), (0, None))(choice.keys, jnp.arange(r))
        keys = jax.vmap(fold, (0, None))(keys.reshape(-1), choice.step)
        allowed = jnp.broadcast_to(choice.allowed, (b, r, choice.allowed.shape[-1]))
        written = Written(self.tokens.reshape(b * r, -1), choice.step)
        token = self.sampler.sample(allowed.reshape(b * r, -1), keys, written)
        token = token.reshape(b, r).astype(jnp.int32)

        logits = jnp.broadcast_to(choice.logits, allowed.shape)
        logprob = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
        logprob = jnp.where(self.ended, 0, logprob - choice.normalizer())
        # A row that has ended is computed on until all have; what it chooses is dropped.
        token = jnp.where(self.ended, PAD, token)
        tokens = self.tokens.at[:, :, choice.step].set(token)
        logprobs = self.logprobs.at[:, :, choice.step].set(logprob)
        return type(self)(self.sampler, tokens, logprobs, self.ended | (token == EOS)), None

    def done(self) -> jax.Array:
        """bool[B]: every row of the image has ended."""
        return jnp.all(self.ended, axis=1)

    def hypotheses(self) -> Hypotheses:
        """All rows; the score is the sum of log-probabilities."""
        score, order = jax.lax.top_k(jnp.sum(self.logprobs, axis=-1), self.ended.shape[1])
        tokens = jnp.take_along_axis(self.tokens, order[..., None], axis=1)
        logprobs = jnp.take_along_axis(self.logprobs, order[..., None], axis=1)
        return Hypotheses(tokens, logprobs, score)

    def leading(self) -> jax.Array:
        """int32[B, M]: the row to show while captions are being written."""
        return self.tokens[:, 0]
