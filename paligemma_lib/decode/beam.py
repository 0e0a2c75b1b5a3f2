"""Searches for the likeliest captions with beam search.

    beams = Beams.empty(Beam(4), images, max_tokens)
    beams, parent = beams.advance(choice)
    beams.done(), beams.hypotheses()

Each step does two things. It ends every live beam with EOS, and keeps the best captions that have
ended at any step. It also extends the live beams: of all continuations other than EOS, over all
beams of the image, the K likeliest become the new live beams. So only captions with EOS are
returned, and a caption that ends takes no place from a live beam. The reference implementation
does the same (with `nbest=1`). Ties are resolved by order: the earlier beam comes first, and within
a beam the lower token id.
"""

import dataclasses
import functools
from typing import ClassVar, Self

import jax
import jax.numpy as jnp

from paligemma_lib.batch import EOS, PAD
from paligemma_lib.decode.repetition import LARGEST_NGRAM, NoRepeatNgram
from paligemma_lib.decode.samplers import MAX_ROWS, Written
from paligemma_lib.decode.samples import Choice, Hypotheses
from paligemma_lib.runtime.bounds import real, whole


@dataclasses.dataclass(frozen=True)
class Beam:
    """Beam search with `size` live beams.

    Attributes:
      size: K, the number of live beams of each image.
      length_penalty: alpha; the score of a caption is the sum of its log-probabilities divided by
        `tokens ** alpha`, EOS counted. 0: no normalization; larger values favour longer captions.
      nbest: N, the number of captions of each image to return; None: `size`. The search continues
        while a live beam might still beat the last of them, so 1 is the fastest.
      no_repeat_ngram: no beam repeats an n-gram of so many tokens, see `NoRepeatNgram`; None: any
        may be repeated.
    """

    random: ClassVar[bool] = False

    size: int
    length_penalty: float = 0.0
    nbest: int | None = None
    no_repeat_ngram: int | None = None

    def __post_init__(self) -> None:
        set_field = functools.partial(object.__setattr__, self)  # the dataclass is frozen
        set_field("size", whole("Beam: size", self.size, 1, MAX_ROWS))
        set_field("length_penalty", real("Beam: length_penalty", self.length_penalty, least=0))
        if self.nbest is not None:
            set_field("nbest", whole("Beam: nbest", self.nbest, 1, MAX_ROWS))
        if self.no_repeat_ngram is not None:
            size = whole("Beam: no_repeat_ngram", self.no_repeat_ngram, 1, LARGEST_NGRAM)
            set_field("no_repeat_ngram", size)

    @property
    def rows(self) -> int:
        """Number of live beams of each image, as `Sampler.rows`."""
        return self.size

    def score(self, logprob: jax.Array, tokens: int | jax.Array) -> jax.Array:
        """Returns the score of captions from their summed log-probabilities and token counts."""
        return logprob / jnp.asarray(tokens, jnp.float32) ** self.length_penalty


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tokens", "logprobs", "total", "ended", "broken"),
    meta_fields=("sampler",),
)
@dataclasses.dataclass(frozen=True)
class Beams:
    """Live beams, likeliest first, and the best captions that have ended.

    Attributes:
      sampler: the settings of the search.
      tokens: int32[B, K, M], tokens of live beams.
      logprobs: float32[B, K, M], log-probability of each of these tokens.
      total: float32[B, K], sum of the log-probabilities of each live beam; -inf: no beam.
      ended: the N best captions of each image that have ended, best first.
      broken: bool[B], whether the model's logits were NaN or infinite; see `Choice.broken`.
    """

    sampler: Beam
    tokens: jax.Array
    logprobs: jax.Array
    total: jax.Array
    ended: Hypotheses
    broken: jax.Array

    @classmethod
    def empty(cls, sampler: Beam, images: int, max_tokens: int) -> Self:
        """Returns one live beam without tokens for each image, with space for `max_tokens`."""

        def empty(rows: int) -> tuple[jax.Array, jax.Array]:
            tokens = jnp.full((images, rows, max_tokens), PAD, jnp.int32)
            return tokens, jnp.zeros(tokens.shape)

        nbest = sampler.nbest or sampler.size
        # All beams of an image begin equal. If all had the total 0, the first step would choose the
        # likeliest token K times. With [0, -inf, ...], it chooses K different tokens of beam 0.
        total = jnp.full((images, sampler.size), -jnp.inf, jnp.float32).at[:, 0].set(0)
        none = jnp.full((images, nbest), -jnp.inf, jnp.float32)
        ended = Hypotheses(*empty(nbest), none)
        return cls(sampler, *empty(sampler.size), total, ended, jnp.zeros(images, bool))

    def advance(self, choice: Choice) -> tuple[Self, jax.Array]:
        """Ends every beam with EOS and extends the live ones by a token.

        Returns:
          The beams after this step, and int32[B, K] `parent`: the index of the old beam that each
          new beam continues.
        """
        # Example: K = 2 beams with totals [-1.0, -1.5] and the tokens EOS, a, b. Their
        # log-probabilities are [-0.7, -0.9, -2.3] and [-2.3, -0.3, -1.8].
        #   ended:         [-1.7, -3.8], the totals with EOS
        #   continuations: [[EOS -inf, a -1.9, b -3.3], [a -1.8, b -3.3, EOS -inf]]
        #   K best:        flat indices [3, 1], so parent [1, 0], tokens [a, a], totals [-1.8, -1.9]
        step, normalizer, size = choice.step, choice.normalizer(), self.sampler.size
        allowed = self._without_repeats(choice)
        eos = allowed[..., EOS] - normalizer
        ended = self._with_ended(eos, step)

        # The K best of all K * V continuations are among the K best of each beam. EOS may be one of
        # a beam's best tokens and does not count, so K + 1 tokens of each beam suffice.
        width = min(size + 1, allowed.shape[-1])
        logprob, token = jax.lax.top_k(allowed, width)
        logprob = jnp.where(token == EOS, -jnp.inf, logprob - normalizer[..., None])
        # At the first step all beams of an image share the logits [B, 1, V] of its prompt.
        logprob, token = (jnp.broadcast_to(x, (len(x), size, width)) for x in (logprob, token))
        total, order = jax.lax.top_k(_flat(self.total[..., None] + logprob), size)
        # `order` indexes the flattened [K, width] continuations: index // width is the beam, and
        # index % width the rank of the token within that beam.
        parent = order // width
        logprob, token = (jnp.take_along_axis(_flat(x), order, axis=1) for x in (logprob, token))
        tokens, logprobs = _take((self.tokens, self.logprobs), parent)
        tokens = tokens.at[:, :, step].set(token)
        logprobs = logprobs.at[:, :, step].set(logprob)
        # What is computed for an image after its end does not matter.
        broken = self.broken | (jnp.any(choice.broken(), axis=1) & ~self.done())
        return type(self)(self.sampler, tokens, logprobs, total, ended, broken), parent

    def done(self) -> jax.Array:
        """Returns bool[B]: no live beam can still beat the last of the N ended captions.

        An image whose logits are broken is done, too.
        """
        # The total of a beam only falls as it grows, since each log-probability is at most 0. With
        # alpha >= 0 a negative total is divided by most, and scores best, at M tokens. So the best
        # score that a beam can reach is its current total, divided by M ** alpha. While fewer than
        # N captions have ended, the last score is -inf, so the search continues.
        max_tokens = self.tokens.shape[2]
        best = self.sampler.score(jnp.max(self.total, axis=1), max_tokens)
        return (best <= self.ended.score[:, -1]) | self.broken

    def hypotheses(self) -> Hypotheses:
        """Returns the captions that have ended, best first; see `Hypotheses` for broken images."""
        return self.ended.marked(self.broken)

    def leading(self) -> jax.Array:
        """Returns int32[B, M]: the likeliest live beam, or the best ended caption if likelier."""
        # An empty slot of `ended` has log-probabilities of 0, whose sum would beat every live beam,
        # so its score is checked, too.
        live = self.total[:, 0] > jnp.sum(self.ended.logprobs[:, 0], axis=-1)
        live |= jnp.isneginf(self.ended.score[:, 0])
        return jnp.where(live[:, None], self.tokens[:, 0], self.ended.tokens[:, 0])

    def _without_repeats(self, choice: Choice) -> jax.Array:
        """Returns float32[B, R, V], `choice.allowed` with -inf for tokens that repeat an n-gram."""
        rows = choice.allowed.shape[1]
        # At the first step, where all rows share the logits of the prompt, nothing is written.
        if self.sampler.no_repeat_ngram is None or rows < self.sampler.size:
            return choice.allowed
        written = Written(self.tokens.reshape(-1, self.tokens.shape[2]), choice.step)
        flat = choice.allowed.reshape(-1, choice.allowed.shape[2])
        ngrams = NoRepeatNgram(self.sampler.no_repeat_ngram)
        return ngrams.process(flat, written).reshape(choice.allowed.shape)

    def _with_ended(self, eos: jax.Array, step: jax.Array) -> Hypotheses:
        """Returns the N best of the captions that ended before and of the live beams with EOS."""
        eos = jnp.broadcast_to(eos, self.total.shape)
        score = self.sampler.score(self.total + eos, step + 1)
        now = Hypotheses(
            self.tokens.at[:, :, step].set(EOS), self.logprobs.at[:, :, step].set(eos), score
        )
        # Captions that ended before come first, because `top_k` takes the first of equal scores.
        both = [jnp.concatenate(pair, axis=1) for pair in zip(self.ended, now, strict=True)]
        score, order = jax.lax.top_k(both[2], self.ended.score.shape[1])
        return Hypotheses(*_take((both[0], both[1]), order), score)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


def _take(arrays: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gathers rows int32[B, K] of each array [B, N, M] along axis 1."""
    first, second = (jnp.take_along_axis(x, rows[..., None], axis=1) for x in arrays)
    return first, second
