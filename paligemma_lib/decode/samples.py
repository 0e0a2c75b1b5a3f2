"""Holds unfinished captions of greedy and random decoding, where rows never change places.

    samples = Samples.empty(BestOf(3), images, max_tokens)
    samples, _ = samples.advance(choice)                        # one more token in every row
    samples.done(), samples.hypotheses()

`beam.Beams` has the same methods, so the token loop works on both.
"""

import dataclasses
import functools
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

from paligemma_lib.batch import EOS, PAD
from paligemma_lib.decode.samplers import Sampler, Written


class Choice(NamedTuple):
    """The inputs from which the next token is chosen.

    At the first step all rows of an image have the same logits, so R is 1.

    Attributes:
      logits: float32[B, R, V], logits of the model.
      allowed: float32[B, R, V], the same with -inf for tokens that must not be chosen.
      step: int32[], number of tokens that each row has already.
      keys: key[B], random key of each image.
    """

    logits: jax.Array
    allowed: jax.Array
    step: jax.Array
    keys: jax.Array

    def normalizer(self) -> jax.Array:
        """Returns float32[B, R]; `logits` minus this are the model's log-probabilities."""
        return jax.nn.logsumexp(self.logits, axis=-1)


class Hypotheses(NamedTuple):
    """Captions of each image, best first.

    Attributes:
      tokens: int32[B, N, M], with EOS if the caption has ended, then PAD.
      logprobs: float32[B, N, M], log-probability of each token; 0 after the end. It comes from the
        model's logits before temperature, top-k, top-p and banned tokens.
      score: float32[B, N], in descending order; -inf marks an empty slot.
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
    """Unfinished captions: R rows of up to M tokens for each of B images.

    Attributes:
      sampler: chooses the tokens.
      tokens: int32[B, R, M], PAD where no token is written.
      logprobs: float32[B, R, M], log-probability of each token; 0 where no token is written.
      ended: bool[B, R], whether a row has its EOS.
    """

    sampler: Sampler
    tokens: jax.Array
    logprobs: jax.Array
    ended: jax.Array

    @classmethod
    def empty(cls, sampler: Sampler, images: int, max_tokens: int) -> Self:
        """Returns rows without tokens, with space for `max_tokens` tokens."""
        tokens = jnp.full((images, sampler.rows, max_tokens), PAD, jnp.int32)
        ended = jnp.zeros(tokens.shape[:2], bool)
        return cls(sampler, tokens, jnp.zeros(tokens.shape), ended)

    def advance(self, choice: Choice) -> tuple[Self, None]:
        """Adds a token to every row: PAD to a row that has ended.

        Returns:
          The samples after this step, and None: every row continues itself (see `Beams.advance`).
        """
        b, r = self.ended.shape
        fold = jax.random.fold_in
        # The key of a token depends only on its image, row and step. It does not depend on the
        # batch, so a caption is the same whichever images share its batch.
        keys = jax.vmap(jax.vmap(fold, (None, 0)), (0, None))(choice.keys, jnp.arange(r))
        keys = jax.vmap(fold, (0, None))(keys.reshape(-1), choice.step)
        allowed = jnp.broadcast_to(choice.allowed, (b, r, choice.allowed.shape[-1]))
        written = Written(self.tokens.reshape(b * r, -1), choice.step)
        token = self.sampler.sample(allowed.reshape(b * r, -1), keys, written)
        token = token.reshape(b, r).astype(jnp.int32)

        logits = jnp.broadcast_to(choice.logits, allowed.shape)
        logprob = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
        logprob = jnp.where(self.ended, 0, logprob - choice.normalizer())
        # A row that has ended is still computed until all rows have ended; its choice is replaced.
        token = jnp.where(self.ended, PAD, token)
        tokens = self.tokens.at[:, :, choice.step].set(token)
        logprobs = self.logprobs.at[:, :, choice.step].set(logprob)
        return type(self)(self.sampler, tokens, logprobs, self.ended | (token == EOS)), None

    def done(self) -> jax.Array:
        """Returns bool[B]: every row of the image has ended."""
        return jnp.all(self.ended, axis=1)

    def hypotheses(self) -> Hypotheses:
        """Returns all rows, best first; the score is the sum of log-probabilities."""
        score, order = jax.lax.top_k(jnp.sum(self.logprobs, axis=-1), self.ended.shape[1])
        tokens = jnp.take_along_axis(self.tokens, order[..., None], axis=1)
        logprobs = jnp.take_along_axis(self.logprobs, order[..., None], axis=1)
        return Hypotheses(tokens, logprobs, score)

    def leading(self) -> jax.Array:
        """Returns int32[B, M]: row 0, to show while captions are generated."""
        return self.tokens[:, 0]
