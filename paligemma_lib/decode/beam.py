"""Beam search: the likeliest captions rather than the likeliest next token.

    beams = Beams.empty(Beam(4), images, max_tokens)
    beams, parent = beams.advance(choice)
    beams.done(), beams.hypotheses()

At each step every live beam may end, and the best that have ever ended are kept; the K likeliest
continuations other than EOS, of all beams of the image, live on. So only captions with EOS are
returned, and a beam that ends takes no place from one that goes on. The reference implementation
searches so too (with `nbest=1`). Beams of equal score keep their order, and of one beam's tokens
the lower id comes first.
"""

import dataclasses
import functools
from typing import ClassVar, Self

import jax
import jax.numpy as jnp

from paligemma_lib.batch import EOS, PAD
from paligemma_lib.decode.samples import Choice, Hypotheses


@dataclasses.dataclass(frozen=True)
class Beam:
    """Beam search with `size` live beams.

    Attributes:
      size: K.
      length_penalty: alpha; a caption's score is the sum of its log-probabilities divided by
        `tokens ** alpha`, EOS counted. 0: no normalization; towards 1, longer captions win.
      nbest: how many captions of each image to return; None: `size`. The search goes on while a
        live beam might still beat the last of them, so 1 ends soonest.
    """

    random: ClassVar[bool] = False

    size: int
    length_penalty: float = 0.0
    nbest: int | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"Beam: size={self.size}, expected at least 1")
        if not 0 <= self.length_penalty < float("inf"):
            raise ValueError(f"Beam: length_penalty={self.length_penalty}, expected 0 or more")
        if self.nbest is not None and self.nbest < 1:
            raise ValueError(f"Beam: nbest={self.nbest}, expected at least 1, or None")

    @property
    def rows(self) -> int:
        """Captions in the making of each image."""
        return self.size

    def score(self, logprob: jax.Array, tokens: int | jax.Array) -> jax.Array:
        """Score of captions with this sum of log-probabilities and number of tokens."""
        return logprob / jnp.asarray(tokens, jnp.float32) ** self.length_penalty


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tokens", "logprobs", "total", "ended"),
    meta_fields=("sampler",),
)
@dataclasses.dataclass(frozen=True)
class Beams:
    """Live beams, likeliest first, and the best that have ended.

    Attributes:
      sampler: its sizes and its way to score.
      tokens: int32[B, K, M] of live beams.
      logprobs: float32[B, K, M].
      total: float32[B, K], sum of their log-probabilities; -inf: no beam.
      ended: captions that have ended, best first; N of each image.
    """

    sampler: Beam
    tokens: jax.Array
    logprobs: jax.Array
    total: jax.Array
    ended: Hypotheses

    @classmethod
    def empty(cls, sampler: Beam, images: int, max_tokens: int) -> Self:
        """One live beam without tokens for each image, with space for `max_tokens` tokens."""

        def empty(rows: int) -> tuple[jax.Array, jax.Array]:
            tokens = jnp.full((images, rows, max_tokens), PAD, jnp.int32)
            return tokens, jnp.zeros(tokens.shape)

        nbest = sampler.nbest or sampler.size
        # All beams begin alike. With a total of -inf for all but one, the first step takes K
        # different tokens, not K times the same.
        total = jnp.full((images, sampler.size), -jnp.inf).at[:, 0].set(0)
        none = jnp.full((images, nbest), -jnp.inf)
        return cls(sampler, *empty(sampler.size), total, Hypotheses(*empty(nbest), none))

    def advance(self, choice: Choice) -> tuple[Self, jax.Array]:
        """Lets every beam end, then go on; returns int32[B, K], which beam each one continues."""
        # One step, for K = 2 beams with totals [-1.0, -1.5] of an image and a vocabulary of EOS, a,
        # b:
        step, normalizer, size = choice.step, choice.normalizer(), self.sampler.size
        eos = choice.allowed[..., EOS] - normalizer
        ended = self._with_ended(eos, step)

        # One more than K, for EOS may be among them.
        width = min(size + 1, choice.allowed.shape[-1])
        # The K best of all K * V continuations are among the K best of each beam. So K + 1 tokens
        # of each are looked at, not all V; where EOS is one of these, K others are left.
        logprob, token = jax.lax.top_k(choice.allowed, width)
        logprob = jnp.where(token == EOS, -jnp.inf, logprob - normalizer[..., None])
        # At the first step the logits are those of the image, [B, 1, V], for all its beams.
        logprob, token = (jnp.broadcast_to(x, (len(x), size, width)) for x in (logprob, token))
        total, order = jax.lax.top_k(_flat(self.total[..., None] + logprob), size)
        # [K, K + 1] was flattened: the quotient is the beam, the rest the rank of its token.
        parent = order // width
        logprob, token = (jnp.take_along_axis(_flat(x), order, axis=1) for x in (logprob, token))
        tokens, logprobs = _take((self.tokens, self.logprobs), parent)
        tokens = tokens.at[:, :, step].set(token)
        logprobs = logprobs.at[:, :, step].set(logprob)
        return type(self)(self.sampler, tokens, logprobs, total, ended), parent

    def done(self) -> jax.Array:
        """bool[B]: no live beam, however it goes on, can beat the last of the captions kept."""
        max_tokens = self.tokens.shape[2]  # with alpha >= 0, the longest caption has the best score
        # Log-probabilities only fall as a beam grows. What it could score at best is its total now,
        # over the length penalty of the longest caption: if that is no better than the worst
        # finished one, no beam can change the outcome.
        best = self.sampler.score(jnp.max(self.total, axis=1), max_tokens)
        return best <= self.ended.score[:, -1]

    def hypotheses(self) -> Hypotheses:
        """Those that have ended."""
        return self.ended

    def leading(self) -> jax.Array:
        """int32[B, M]: the likeliest live beam, or, if one that ended is likelier, that one."""
        live = self.total[:, 0] > jnp.sum(self.ended.logprobs[:, 0], axis=-1)
        live |= jnp.isneginf(self.ended.score[:, 0])
        return jnp.where(live[:, None], self.tokens[:, 0], self.ended.tokens[:, 0])

    def _with_ended(self, eos: jax.Array, step: jax.Array) -> Hypotheses:
        """The best of what ended before and of the live beams, if they ended here."""
        eos = jnp.broadcast_to(eos, self.total.shape)
        score = self.sampler.score(self.total + eos, step + 1)
        now = Hypotheses(
            self.tokens.at[:, :, step].set(EOS), self.logprobs.at[:, :, step].set(eos), score
        )
        # Finished ones come first, so that of equal scores the one that ended earlier stays.
        both = [jnp.concatenate(pair, axis=1) for pair in zip(self.ended, now, strict=True)]
        score, order = jax.lax.top_k(both[2], self.ended.score.shape[1])
        return Hypotheses(*_take((both[0], both[1]), order), score)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


def _take(arrays: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of each array [B, N, M] the rows int32[B, K]."""
    first, second = (jnp.take_along_axis(x, rows[..., None], axis=1) for x in arrays)
    return first, second
