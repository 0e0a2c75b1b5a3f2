"""The repetition penalty and the ban of repeated n-grams, against plain NumPy."""

import functools

import decode_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib import decode, testing
from paligemma_lib.decode import BestOf, NoRepeatNgram, Processed, RepetitionPenalty, Written

VOCAB, ROOM = 7, 10


def penalized(logits, tokens, penalty):
    """As `RepetitionPenaltyLogitsProcessor` of transformers, for one row."""
    score = logits[tokens]
    logits = logits.copy()
    logits[tokens] = np.where(score < 0, score * penalty, score / penalty)
    return logits


def banned(tokens, size):
    """As `_calc_banned_ngram_tokens` of transformers, for one row."""
    found = {}
    for ngram in zip(*[tokens[k:] for k in range(size)], strict=False):
        found.setdefault(tuple(ngram[:-1]), []).append(ngram[-1])
    if len(tokens) + 1 < size:
        return []
    return found.get(tuple(tokens[len(tokens) + 1 - size :]), [])


# Always four rows, since another number would be another program.
row = st.lists(st.integers(0, VOCAB - 1), min_size=ROOM, max_size=ROOM)
rows = st.lists(row, min_size=4, max_size=4)


@functools.cache
def compiled(processor):
    return jax.jit(processor.process)


@settings(deadline=None, max_examples=200)
@given(rows, st.integers(0, ROOM - 1), st.sampled_from([1, 2, 3, 4, ROOM, ROOM + 1]))
def test_the_ban_is_that_of_transformers(tokens, length, size):
    rng = np.random.default_rng(length)
    logits = rng.normal(size=(len(tokens), VOCAB)).astype(np.float32)
    written = Written(jnp.array(tokens, jnp.int32), jnp.int32(length))
    found = np.asarray(compiled(NoRepeatNgram(size))(logits, written))
    for row, before, after in zip(tokens, logits, found, strict=True):
        expected = before.copy()
        expected[banned(row[:length], size)] = -np.inf
        if np.isneginf(expected).all():
            expected = before
        np.testing.assert_array_equal(after, expected)


@settings(deadline=None, max_examples=100)
@given(rows, st.integers(0, ROOM - 1), st.sampled_from([0.5, 1.0, 1.3, 2.0]))
def test_the_penalty_is_that_of_transformers(tokens, length, penalty):
    rng = np.random.default_rng(length)
    logits = rng.normal(size=(len(tokens), VOCAB)).astype(np.float32)
    logits[:, 3] = -np.inf  # what is banned stays banned
    written = Written(jnp.array(tokens, jnp.int32), jnp.int32(length))
    found = np.asarray(compiled(RepetitionPenalty(penalty))(logits, written))
    for row, before, after in zip(tokens, logits, found, strict=True):
        expected = penalized(before, np.array(row[:length], int), penalty)
        np.testing.assert_allclose(after, expected, rtol=1e-6)


def captions(sampler, **options):
    """Tokens of captions that would repeat themselves, as few tokens are allowed."""
    config, params = cases.model(2)
    found = decode.generate(
        config, params, cases.images(config, 2), testing.tiny_tokenizer(), sampler=sampler,
        max_new_tokens=12, min_new_tokens=11, banned_tokens=cases.all_but(1, *range(4, 12)),
        key=jax.random.key(0), **options,
    )  # fmt: skip
    return [each.tokens for one in found for each in (one, *one.alternatives)]


def repeated(tokens, size):
    ngrams = [tuple(tokens[k : k + size]) for k in range(len(tokens) - size + 1)]
    return len(set(ngrams)) < len(ngrams)


@pytest.mark.parametrize(
    ("plain", "ruled"),
    [
        (decode.Greedy(), Processed(decode.Greedy(), (NoRepeatNgram(3),))),
        (BestOf(3), BestOf(3, Processed(decode.Sample(), (NoRepeatNgram(3),)))),
        (decode.Beam(3), decode.Beam(3, no_repeat_ngram=3)),
    ],
    ids=["greedy", "best of", "beam"],
)
def test_no_caption_repeats_an_ngram(plain, ruled):
    assert any(repeated(tokens, 3) for tokens in captions(plain))
    assert not any(repeated(tokens, 3) for tokens in captions(ruled))


def test_a_penalty_of_one_changes_nothing_and_a_large_one_does():
    plain = captions(decode.Greedy())
    assert captions(Processed(decode.Greedy(), (RepetitionPenalty(1),))) == plain
    assert captions(Processed(decode.Greedy(), (RepetitionPenalty(9.0),))) != plain


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepetitionPenalty(0), "penalty=0"),
        (lambda: RepetitionPenalty(float("nan")), "penalty=nan"),
        (lambda: NoRepeatNgram(0), "size=0"),
        (lambda: NoRepeatNgram(2.0), "size=2.0"),
        (lambda: decode.Beam(2, no_repeat_ngram=0), "no_repeat_ngram=0"),
        (lambda: Processed(decode.Beam(2), ()), "expected a sampler with a method `sample`"),
        (lambda: Processed(decode.Greedy(), ("3",)), "processors with a method `process`"),
    ],
)
def test_settings_without_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()
