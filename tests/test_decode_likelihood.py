"""Decoding against full passes over whole sequences, and against golden results."""

import dataclasses

import decode_cases
import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from decode_cases import ROOM, SAMPLERS

from paligemma_lib import batch as contract
from paligemma_lib import decode
from paligemma_lib.batch import PAD

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.fixture(scope="module")
def ragged():
    return decode_cases.ragged_images()


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_golden_greedy(shared, version):
    config = cases.tiny_config(version)
    params, batch, golden = cases.golden(shared, version)
    length = golden["prompt_mask"].sum(axis=1)
    prompt = golden["prompt_text"][:, : length.max()]
    _, found = decode_cases.run(
        config,
        params,
        batch["image"],
        prompt,
        length,
        max_new_tokens=golden["greedy_logp"].shape[1],
    )
    np.testing.assert_array_equal(found.tokens[:, 0], golden["greedy_tokens"])
    np.testing.assert_allclose(found.logprobs[:, 0], golden["greedy_logp"], atol=1e-4)


@pytest.mark.parametrize(("size", "nbest"), [(2, None), (4, None), (4, 1)])
@pytest.mark.parametrize("version", cases.VERSIONS)
def test_golden_beams(shared, version, size, nbest):
    config = cases.tiny_config(version)
    params, batch, golden = cases.golden(shared, version)
    length = golden["prompt_mask"].sum(axis=1)
    prompt, expected = golden["prompt_text"][:, : length.max()], golden[f"beam{size}_tokens"]
    sampler = decode.Beam(size, nbest=nbest)
    _, found = decode_cases.run(
        config, params, batch["image"], prompt, length, sampler=sampler, max_new_tokens=12
    )
    np.testing.assert_array_equal(found.tokens[:, 0], expected)


@pytest.mark.parametrize(
    "sampler",
    [each for each in SAMPLERS if not isinstance(each, decode.Sample)],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("version", cases.VERSIONS)
def test_log_probabilities_are_those_of_a_full_pass(version, sampler, ragged):
    config, params = decode_cases.model(version)
    keys = decode.image_keys(jax.random.key(1), range(5))
    _, found = decode_cases.run(
        config,
        params,
        *ragged,
        sampler=sampler,
        keys=keys,
        max_new_tokens=ROOM,
        min_new_tokens=4,
        banned_tokens=[PAD],
    )
    for n in range(sampler.rows):
        expected = decode_cases.log_likelihood(config, params, *ragged, found.tokens[:, n])
        np.testing.assert_allclose(found.logprobs[:, n], expected, atol=1e-4)
    np.testing.assert_allclose(found.score, found.logprobs.sum(axis=-1), atol=1e-5)
    assert len(np.unique(found.tokens.reshape(-1, ROOM), axis=0)) == 5 * sampler.rows


def test_greedy_takes_the_likeliest_of_a_full_pass(ragged):
    config, params = decode_cases.model(1)
    _, found = decode_cases.run(config, params, *ragged, max_new_tokens=ROOM, banned_tokens=[PAD])
    batch, written = decode_cases.sequences(*ragged, found.tokens[:, 0])
    assert written.min() >= 4
    scores = np.asarray(cases.all_logits(config, params, batch)).copy()
    scores[..., PAD] = -np.inf
    for b, (n, m) in enumerate(zip(ragged[2], written, strict=True)):
        likeliest = scores[b, n - 1 : n + m - 1].argmax(axis=-1)
        np.testing.assert_array_equal(likeliest, found.tokens[b, 0, :m])


def test_banned_tokens_never_come_and_are_not_normalized_away(ragged):
    config, params = decode_cases.model(2)
    image, prompt, length = ragged
    _, free = decode_cases.run(config, params, *ragged, max_new_tokens=ROOM)
    banned = set(free.tokens.ravel().tolist())
    _, found = decode_cases.run(config, params, *ragged, max_new_tokens=ROOM, banned_tokens=banned)
    assert not banned & set(found.tokens.ravel().tolist())
    expected = decode_cases.log_likelihood(
        config, params, image, prompt, length, found.tokens[:, 0]
    )
    np.testing.assert_allclose(found.logprobs[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_cache_of_another_type(ragged, dtype):
    config, params = decode_cases.model(2)
    state, found = decode_cases.run(config, params, *ragged, max_new_tokens=ROOM, cache_dtype=dtype)
    assert {leaf.dtype for leaf in (*state.prompt.cache, *state.cache)} == {jnp.dtype(dtype)}
    expected = decode_cases.log_likelihood(config, params, *ragged, found.tokens[:, 0])
    difference = np.abs(found.logprobs[:, 0] - expected).max()
    assert 1e-4 < difference < (0.5 if dtype == "bfloat16" else 0.05)


def test_activations_and_parameters_in_16_bits(ragged):
    config, params = decode_cases.model(2)
    config = dataclasses.replace(config, dtype="bfloat16")
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    state, found = decode_cases.run(config, params, *ragged, max_new_tokens=ROOM)
    assert state.cache[0].dtype == jnp.bfloat16
    assert found.logprobs.dtype == np.float32
    expected = decode_cases.log_likelihood(config, params, *ragged, found.tokens[:, 0])
    np.testing.assert_allclose(found.logprobs[:, 0], expected, atol=0.5)


def test_leak_probe():
    """Changing one slot changes what may see it, and nothing else at all."""
    config, params = decode_cases.model(2)
    batch = cases.packed_batch(config)
    before = np.asarray(cases.all_logits(config, params, batch))
    sees = contract.attention_mask(batch["segment"], batch["position"])
    for slot in range(batch["text"].shape[1]):
        text = batch["text"].copy()
        text[:, slot] = (text[:, slot] + 101) % 512
        after = np.asarray(cases.all_logits(config, params, {**batch, "text": text}))
        changed = np.any(before != after, axis=-1)
        for b, segment in enumerate(batch["segment"]):
            there = segment >= 0
            expected = sees[b, :, slot] if segment[slot] else there  # the prefix: everything
            np.testing.assert_array_equal(changed[b, there], expected[there], err_msg=f"{b} {slot}")
