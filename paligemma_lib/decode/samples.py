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
import numpy as np

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

    def broken(self) -> jax.Array:
        """Returns bool[B, R]: whether a logit of the model is NaN or infinite.

        Then the sum of exponentials is not finite. It is computed in any case, so this costs
        nothing. Banned tokens are -inf in `allowed` alone.
        """
        return ~jnp.isfinite(self.normalizer())


class Hypotheses(NamedTuple):
    """Captions of each image, best first.

    Attributes:
      tokens: int32[B, N, M], with EOS if the caption has ended, then PAD.
      logprobs: float32[B, N, M], log-probability of each token; 0 after the end. It comes from the
        model's logits before temperature, top-k, top-p and banned tokens.
      score: float32[B, N], in descending order; -inf marks an empty slot, and NaN an image for
        which the model's logits were NaN or infinite, so that it has no caption.
    """

    tokens: jax.Array
    logprobs: jax.Array
    score: jax.Array

    def marked(self, broken: jax.Array) -> Self:
        """Returns the same with a score of NaN for the images in `broken`, bool[B]."""
        return self._replace(score=jnp.where(broken[:, None], jnp.nan, self.score))


class NotFinite(ValueError):
    """Raised when the model's logits for an image are NaN or infinite."""


def check_finite(broken: np.ndarray) -> None:
    """Raises NotFinite unless int[K], the numbers of images with broken logits, is empty."""
    if len(broken):
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise NotFinite(
            f"the model's logits for image {broken[0]}{more} are NaN or infinite, so there is no "
            "caption: check that the parameters and the pixels are finite; if dtype is float16, "
            "activations may exceed its largest number, 65,504: use bfloat16"
        )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tokens", "logprobs", "ended", "broken", "first_row"),
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
      broken: bool[B], whether the model's logits for an unfinished row were NaN or infinite.
      first_row: int32[B], number of the first row: random keys depend on it. Not 0 only where
        the rows that `BestOf` draws of an image are generated apart, as `slots` does.
    """

    sampler: Sampler
    tokens: jax.Array
    logprobs: jax.Array
    ended: jax.Array
    broken: jax.Array
    first_row: jax.Array

    @classmethod
    def empty(
        cls, sampler: Sampler, images: int, max_tokens: int, first_row: int | jax.Array = 0
    ) -> Self:
        """Returns rows without tokens, with space for `max_tokens` tokens."""
        tokens = jnp.full((images, sampler.rows, max_tokens), PAD, jnp.int32)
        ended = jnp.zeros(tokens.shape[:2], bool)
        broken = jnp.zeros(images, bool)
        first = jnp.full(images, first_row, jnp.int32)
        return cls(sampler, tokens, jnp.zeros(tokens.shape), ended, broken, first)

    def advance(self, choice: Choice) -> tuple[Self, None]:
        """Adds a token to every row: PAD to a row that has ended.

        Returns:
          The samples after this step, and None: every row continues itself (see `Beams.advance`).
        """
        b, r = self.ended.shape
        fold = jax.random.fold_in
        # The key of a token depends only on its image, row and step. It does not depend on the
        # batch, so a caption is the same whichever images share its batch.
        rows = self.first_row[:, None] + jnp.arange(r)
        keys = jax.vmap(jax.vmap(fold, (None, 0)))(choice.keys, rows)
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
        # What is computed for a row after its end does not matter.
        broken = self.broken | jnp.any(choice.broken() & ~self.ended, axis=1)
        ended = self.ended | (token == EOS)
        return dataclasses.replace(
            self, tokens=tokens, logprobs=logprobs, ended=ended, broken=broken
        ), None

    def done(self) -> jax.Array:
        """Returns bool[B]: every row of the image has ended, or its logits are broken."""
        return jnp.all(self.ended, axis=1) | self.broken

    def hypotheses(self) -> Hypotheses:
        """Returns all rows, best first; the score is the sum of log-probabilities.

        See `Hypotheses` for images whose logits were broken.
        """
        score, order = jax.lax.top_k(jnp.sum(self.logprobs, axis=-1), self.ended.shape[1])
        tokens = jnp.take_along_axis(self.tokens, order[..., None], axis=1)
        logprobs = jnp.take_along_axis(self.logprobs, order[..., None], axis=1)
        return Hypotheses(tokens, logprobs, score).marked(self.broken)

    def leading(self) -> jax.Array:
        """Returns int32[B, M]: row 0, to show while captions are generated."""
        return self.tokens[:, 0]
