"""Beam search against all captions there are."""

import itertools

import decode_cases
import numpy as np
import pytest

from paligemma_lib import decode
from paligemma_lib.batch import EOS

SLOTS = 4

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.fixture(scope="module")
def searched():
    """Two images and, for each, every caption of three letters within four slots, with scores."""
    config, params = decode_cases.model(2)
    image, (prompt, length) = decode_cases.images(config, 2), decode_cases.prompts([3, 5])
    captions = [
        [*letters, EOS] + [0] * (SLOTS - 1 - n)
        for n in range(SLOTS)
        for letters in itertools.product(decode_cases.LETTERS, repeat=n)
    ]
    tokens = np.array(captions, np.int32)
    logprobs = [
        decode_cases.log_likelihood(
            config, params, *(np.repeat(x[b : b + 1], len(tokens), 0) for x in (image, prompt)),
            np.repeat(length[b : b + 1], len(tokens)), tokens,
        )
        for b in range(2)
    ]  # fmt: skip
    return (config, params, image, prompt, length), tokens, np.array(logprobs)


def search(arguments, sampler, **options):
    banned = decode_cases.all_but(EOS, *decode_cases.LETTERS)
    options = {"max_new_tokens": SLOTS, "banned_tokens": banned} | options
    return decode_cases.run(*arguments, sampler=sampler, **options)


@pytest.mark.parametrize(("alpha", "nbest"), [(0.0, None), (0.6, 5), (2.0, 1)])
def test_a_wide_beam_finds_the_best_of_all_captions(searched, alpha, nbest):
    arguments, tokens, logprobs = searched
    assert len(tokens) == 1 + 3 + 9 + 27
    _, found = search(arguments, decode.Beam(27, length_penalty=alpha, nbest=nbest))
    score = logprobs.sum(axis=-1) / np.sum(tokens != 0, axis=-1) ** alpha
    n = nbest or 27
    assert found.tokens.shape == (2, n, SLOTS)
    for b in range(2):
        order = np.argsort(-score[b], kind="stable")[:n]
        np.testing.assert_array_equal(found.tokens[b], tokens[order])
        np.testing.assert_allclose(found.score[b], score[b][order], atol=1e-4)
        np.testing.assert_allclose(found.logprobs[b], logprobs[b][order], atol=1e-4)


def plain_beam_search(tokens, logprobs, size):
    """The same search over a table of all captions: what it knows are sums of prefixes."""
    table = {}
    for caption, row in zip(tokens.tolist(), logprobs, strict=True):
        for n in range(1, SLOTS + 1):
            if n == 1 or caption[n - 2] not in (EOS, 0):
                table[tuple(caption[:n])] = float(np.sum(row[:n], dtype=np.float64))
    live, ended = [()], {}
    for _ in range(SLOTS):
        ended.update({(*beam, EOS): table[*beam, EOS] for beam in live})
        following = [(*beam, letter) for beam in live for letter in decode_cases.LETTERS]
        live = sorted((f for f in following if f in table), key=table.get, reverse=True)[:size]
    return sorted(ended.items(), key=lambda item: item[1], reverse=True)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_narrow_beam_searches_as_a_plain_one_does(searched, size):
    arguments, tokens, logprobs = searched
    nbest = max(2, size)
    _, found = search(arguments, decode.Beam(size, nbest=nbest))
    for b in range(2):
        expected = plain_beam_search(tokens, logprobs[b], size)[:nbest]
        for n, (caption, score) in enumerate(expected):
            assert tuple(t for t in found.tokens[b, n].tolist() if t) == caption
            np.testing.assert_allclose(found.score[b, n], score, atol=1e-4)


def test_fewer_captions_than_asked_for(searched):
    """One letter and four slots: four captions."""
    arguments, _, _ = searched
    banned = decode_cases.all_but(EOS, 4)
    _, found = search(arguments, decode.Beam(27), banned_tokens=banned)
    assert np.isfinite(found.score).sum(axis=1).tolist() == [4, 4]
    assert not np.isnan(found.score).any()
    captions = {tuple(caption) for caption in found.tokens[0, :4].tolist()}
    assert captions == {(1, 0, 0, 0), (4, 1, 0, 0), (4, 4, 1, 0), (4, 4, 4, 1)}


def test_the_best_needs_fewer_steps_than_the_n_best(searched):
    arguments, _, _ = searched
    steps = []
    for nbest in (1, 8):
        state, found = search(arguments, decode.Beam(4, nbest=nbest), max_new_tokens=60)
        steps.append(int(state.step))
        assert np.all(found.score[:, -1] > -np.inf)
    assert steps[0] < steps[1] < 60


def test_ties_fall_the_same_way_every_time(searched):
    """All tokens are as likely as any: logits are zero."""
    config, params, image, prompt, length = searched[0]
    llm = {**params["llm"], "final_norm": {"scale": np.full(64, -1, np.float32)}}
    arguments = config, {**params, "llm": llm}, image, prompt, length
    sampler = decode.Beam(3, nbest=3)
    _, found = search(arguments, sampler, min_new_tokens=2, banned_tokens=[511])
    assert found.tokens.tolist() == [[[0, 0, 1, 0], [0, 2, 1, 0], [0, 3, 1, 0]]] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": 2, "length_penalty": -1.0}, "length_penalty=-1.0"),
        ({"size": 2, "length_penalty": float("nan")}, "length_penalty=nan"),
        ({"size": 2, "nbest": 0}, "nbest=0"),
    ],
)
def test_settings_without_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        decode.Beam(**settings)
