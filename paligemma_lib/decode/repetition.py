"""Changes logits so that a caption repeats itself less: a penalty, and a ban of repeated n-grams.

    Processed(Greedy(), (RepetitionPenalty(1.2), NoRepeatNgram(3)))
    BestOf(5, Processed(Sample(top_p=0.9), (NoRepeatNgram(2),)))
    Beam(4, no_repeat_ngram=3)

A processor is a frozen dataclass with the method of `LogitsProcessor`, so one of your own can stand
beside these. Only tokens of the caption count, not those of its prompt.

Sources: the penalty is that of CTRL (arXiv 1909.05858, section 4.1), the ban that of arXiv
1705.04304, section 2.5. Hugging Face transformers defines both alike, but counts the prompt, too.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from paligemma_lib.decode.samplers import Sampler, Written
from paligemma_lib.runtime.bounds import real, whole

LARGEST_NGRAM = 64  # tokens


class LogitsProcessor(Protocol):
    """Changes the logits of the next token, knowing the tokens before it.

    It is part of a sampler, and so must be hashable and compare by its settings, as a frozen
    dataclass does. `process` runs under jit.
    """

    def process(self, logits: jax.Array, written: Written) -> jax.Array:
        """Returns the changed logits, float32[N, V].

        Args:
          logits: float32[N, V]; -inf for tokens that must not be chosen.
          written: the tokens that each row has so far.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Processed:
    """A sampler that chooses from processed logits.

    Attributes:
      sampler: chooses the tokens.
      processors: change the logits, one after the other.
    """

    sampler: Sampler
    processors: tuple[LogitsProcessor, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "processors", tuple(self.processors))
        for each in (*self.processors, self.sampler):
            if not hasattr(each, "sample" if each is self.sampler else "process"):
                raise ValueError(
                    f"Processed: {each!r:.60}, expected a sampler with a method `sample` and "
                    "processors with a method `process`; Beam has the field no_repeat_ngram"
                )

    @property
    def rows(self) -> int:
        """Number of captions of each image, see `Sampler`."""
        return self.sampler.rows

    @property
    def random(self) -> bool:
        """Whether keys are used, see `Sampler`."""
        return self.sampler.random

    def sample(self, logits: jax.Array, keys: jax.Array, written: Written) -> jax.Array:
        """Returns the tokens that `sampler` chooses. See `Sampler`."""
        for processor in self.processors:
            logits = processor.process(logits, written)
        return self.sampler.sample(logits, keys, written)


@dataclasses.dataclass(frozen=True)
class RepetitionPenalty:
    """Makes tokens less likely that the caption has already.

    Attributes:
      penalty: a positive logit is divided by it, a negative one multiplied; 1 changes nothing, and
        below 1 repetition becomes likelier.
    """

    penalty: float

    def __post_init__(self) -> None:
        penalty = real("RepetitionPenalty: penalty", self.penalty, least=1e-3, most=1e3)
        object.__setattr__(self, "penalty", penalty)

    def process(self, logits: jax.Array, written: Written) -> jax.Array:
        """See `LogitsProcessor`."""
        there = jnp.arange(written.tokens.shape[1]) < written.length
        seen = _marked(written.tokens, jnp.broadcast_to(there, written.tokens.shape), logits)
        penalized = jnp.where(logits < 0, logits * self.penalty, logits / self.penalty)
        return jnp.where(seen, penalized, logits)


@dataclasses.dataclass(frozen=True)
class NoRepeatNgram:
    """Bans tokens that would complete an n-gram which the caption has already.

    If nothing else may be chosen, the ban does not hold for that token.

    Attributes:
      size: n, the number of tokens of an n-gram; 1 bans every token from coming twice.
    """

    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", whole("NoRepeatNgram: size", self.size, 1, LARGEST_NGRAM))

    def process(self, logits: jax.Array, written: Written) -> jax.Array:
        """See `LogitsProcessor`."""
        tokens, before = written.tokens, self.size - 1
        starts = tokens.shape[1] - before  # n-grams that fit into a caption
        if starts <= 0:
            return logits
        # With n = 3 and the caption a b c a b, the last two tokens are a b. The n-gram that starts
        # at 0 begins with them, so the token that ends it is banned: c.
        same = jnp.broadcast_to(jnp.arange(starts) + before < written.length, (len(tokens), starts))
        for k in range(before):
            last = jnp.take(tokens, written.length - before + k, axis=1, mode="clip")
            same &= tokens[:, k : k + starts] == last[:, None]
        banned = _marked(tokens[:, before:], same, logits)
        left = jnp.where(banned, -jnp.inf, logits)
        possible = jnp.any(jnp.isfinite(left), axis=1, keepdims=True)
        return jnp.where(possible, left, logits)


def _marked(tokens: jax.Array, marks: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns bool[N, V]: which tokens int32[N, M] are marked by bool[N, M]."""
    none = jnp.zeros(logits.shape[1], bool)
    return jax.vmap(lambda row, mark: none.at[row].max(mark))(tokens, marks)
