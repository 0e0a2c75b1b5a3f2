"""Prefill and the token loop: against full passes, golden results, and their own promises."""

import dataclasses

import decode_cases
import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import batch as contract
from paligemma_lib import decode
from paligemma_lib.model import gemma

EOS, PAD = contract.EOS, contract.PAD


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="module")
def ragged():
    """Five images with prompts of different lengths."""
    config, _ = decode_cases.model(2)
    return decode_cases.images(config, 5), *decode_cases.prompts([4, 2, 6, 1, 4])


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
    "sampler", [decode.Greedy(), decode.BestOf(3), decode.Beam(3)], ids=lambda s: type(s).__name__
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
        max_new_tokens=7,
        min_new_tokens=4,
        banned_tokens=[PAD],
    )
    for n in range(sampler.rows):
        expected = decode_cases.log_likelihood(config, params, *ragged, found.tokens[:, n])
        np.testing.assert_allclose(found.logprobs[:, n], expected, atol=1e-4)
    np.testing.assert_allclose(found.score, found.logprobs.sum(axis=-1), atol=1e-5)
    assert len(np.unique(found.tokens.reshape(-1, 7), axis=0)) == 5 * sampler.rows


def test_greedy_takes_the_likeliest_of_a_full_pass(ragged):
    config, params = decode_cases.model(1)
    image, prompt, length = ragged
    _, found = decode_cases.run(config, params, *ragged, max_new_tokens=7)
    tokens = found.tokens[:, 0, :4]
    for b, n in enumerate(length):
        batch = {
            "image": image[b : b + 1],
            "text": np.concatenate([prompt[b, :n], tokens[b]])[None],
            "segment": np.repeat([0, 1], [n, 4]).astype(np.int32)[None],
            "position": np.arange(n + 4, dtype=np.int32)[None],
        }
        scores = np.asarray(cases.all_logits(config, params, batch))[0, n - 1 : -1]
        np.testing.assert_array_equal(scores.argmax(axis=-1), tokens[b])


@pytest.mark.parametrize(
    "sampler",
    [decode.Greedy(), decode.Sample(top_p=0.9), decode.BestOf(2), decode.Beam(3)],
    ids=lambda s: type(s).__name__,
)
def test_neighbours_prompt_padding_and_k_change_nothing(sampler, ragged):
    config, params = decode_cases.model(2)
    image, prompt, length = ragged
    keys = decode.image_keys(jax.random.key(1), range(5))
    options = {
        "sampler": sampler,
        "max_new_tokens": 7,
        "min_new_tokens": 2,
        "banned_tokens": decode_cases.all_but(EOS, *decode_cases.LETTERS),
    }
    state, together = decode_cases.run(config, params, image, prompt, length, keys=keys, **options)
    step, by_step = decode_cases.run(
        config, params, image, prompt, length, k=1, keys=keys, **options
    )
    assert step.step == state.step
    jax.tree.map(np.testing.assert_array_equal, by_step, together)
    rows = np.array([3, 1])  # prompts of one token and of two
    _, apart = decode_cases.run(
        config, params, image[rows], prompt[rows, :2], length[rows], keys=keys[rows], **options
    )
    np.testing.assert_array_equal(apart.tokens, together.tokens[rows])
    np.testing.assert_allclose(apart.logprobs, together.logprobs[rows], atol=1e-4)


def test_a_row_that_has_ended_stays_so(ragged):
    config, params = decode_cases.model(2)
    _, found = decode_cases.run(
        config,
        params,
        *ragged,
        sampler=decode.BestOf(4),
        keys=decode.image_keys(jax.random.key(0), range(5)),
        max_new_tokens=30,
        banned_tokens=decode_cases.all_but(EOS, *decode_cases.LETTERS),
    )
    ended = np.cumsum(found.tokens == EOS, axis=-1) - (found.tokens == EOS) > 0
    assert ended.any() and not ended.all()
    assert np.all(found.tokens[ended] == PAD) and np.all(found.logprobs[ended] == 0)
    assert np.all(found.tokens[~ended] != PAD) and np.all(found.logprobs[~ended] < 0)
    assert np.all(np.diff(found.score) <= 0)


def test_stops_when_all_rows_have_ended(ragged):
    config, params = decode_cases.model(2)
    options = {"max_new_tokens": 1000, "banned_tokens": decode_cases.all_but(EOS)}
    state, found = decode_cases.run(config, params, *ragged, **options, min_new_tokens=0)
    assert state.step == 1
    assert np.all(found.tokens[:, 0, 0] == EOS)
    beams, _ = decode_cases.run(config, params, *ragged, sampler=decode.Beam(2, nbest=1), **options)
    assert beams.step == 1


@pytest.mark.parametrize("sampler", [decode.Greedy(), decode.Beam(2)])
def test_no_end_before_the_minimum(ragged, sampler):
    config, params = decode_cases.model(2)
    _, found = decode_cases.run(
        config,
        params,
        *ragged,
        sampler=sampler,
        max_new_tokens=7,
        min_new_tokens=5,
        banned_tokens=decode_cases.all_but(EOS, 4),
    )
    written = np.sum(found.tokens[:, 0] != PAD, axis=-1)
    assert np.all(written > 5) and np.all(found.tokens[:, 0, :5] == 4)


def test_banned_tokens_never_come_and_are_not_normalized_away(ragged):
    config, params = decode_cases.model(2)
    image, prompt, length = ragged
    _, free = decode_cases.run(config, params, *ragged, max_new_tokens=7)
    banned = set(free.tokens.ravel().tolist())
    _, found = decode_cases.run(config, params, *ragged, max_new_tokens=7, banned_tokens=banned)
    assert not banned & set(found.tokens.ravel().tolist())
    expected = decode_cases.log_likelihood(
        config, params, image, prompt, length, found.tokens[:, 0]
    )
    np.testing.assert_allclose(found.logprobs[:, 0], expected, atol=1e-4)


def test_one_token_is_room_enough(ragged):
    config, params = decode_cases.model(2)
    state, one = decode_cases.run(config, params, *ragged, max_new_tokens=1)
    _, many = decode_cases.run(config, params, *ragged, max_new_tokens=7)
    assert state.step == 1
    np.testing.assert_array_equal(one.tokens[..., 0], many.tokens[..., 0])


def test_tokens_so_far_grow(ragged):
    config, params = decode_cases.model(2)
    for sampler in (decode.Greedy(), decode.Beam(2)):
        state = decode.prefill(
            config, params, *ragged, sampler=sampler, max_new_tokens=7, min_new_tokens=6
        )
        for step, more in ((1, 3), (4, 2), (6, 5)):
            assert state.step == step
            so_far = np.asarray(decode.tokens_so_far(state))
            assert np.all(so_far[:, :step] != PAD) and np.all(so_far[:, step:] == PAD)
            assert not decode.finished(state)
            state = decode.extend(config, params, state, more)
        assert state.step == 7 and decode.finished(state)


def test_a_state_may_be_extended_twice(ragged):
    config, params = decode_cases.model(2)
    state = decode.prefill(config, params, *ragged, max_new_tokens=7)
    first, second = (decode.extend(config, params, state, 6) for _ in range(2))
    np.testing.assert_array_equal(first.written.tokens, second.written.tokens)
    assert state.step == 1


def test_nothing_is_traced_anew(ragged, monkeypatch):
    config, params = decode_cases.model(2)
    config = dataclasses.replace(config, remat="full")  # compiled for no other test
    image, prompt, length = ragged
    traced = []
    apply_layers = gemma.apply_layers

    def counted(*args, **kwargs):
        traced.append(args[2].shape)
        return apply_layers(*args, **kwargs)

    monkeypatch.setattr(gemma, "apply_layers", counted)
    for seed in range(3):
        decode_cases.run(
            config,
            jax.tree.map(lambda leaf, seed=seed: leaf + 0.01 * seed, params),
            image + 0.01 * seed,
            prompt + seed,
            length,
            k=1 + seed,
            sampler=decode.Sample(temperature=0.7),
            keys=decode.image_keys(jax.random.key(seed), range(5)),
            max_new_tokens=5,
            min_new_tokens=seed,
            banned_tokens=[seed],
        )
    assert traced == [(5, 16 + 6, 64), (5, 1, 64)]


def test_keys_and_values_of_image_and_prompt_are_stored_once(ragged):
    config, params = decode_cases.model(2)
    state = decode.prefill(config, params, *ragged, sampler=decode.Beam(4), max_new_tokens=10)
    assert [leaf.shape for leaf in state.prompt.cache] == [(3, 5, 16 + 6, 2, 16)] * 2
    assert [leaf.shape for leaf in state.cache] == [(3, 5 * 4, 9, 2, 16)] * 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_cache_of_another_type(ragged, dtype):
    config, params = decode_cases.model(2)
    state, found = decode_cases.run(config, params, *ragged, max_new_tokens=7, cache_dtype=dtype)
    assert {leaf.dtype for leaf in (*state.prompt.cache, *state.cache)} == {jnp.dtype(dtype)}
    expected = decode_cases.log_likelihood(config, params, *ragged, found.tokens[:, 0])
    difference = np.abs(found.logprobs[:, 0] - expected).max()
    assert 1e-4 < difference < (0.5 if dtype == "bfloat16" else 0.05)


def test_activations_and_parameters_in_16_bits(ragged):
    config, params = decode_cases.model(2)
    config = dataclasses.replace(config, dtype="bfloat16")
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    state, found = decode_cases.run(config, params, *ragged, max_new_tokens=7)
    assert state.cache[0].dtype == jnp.bfloat16
    assert found.logprobs.dtype == np.float32
    expected = decode_cases.log_likelihood(config, params, *ragged, found.tokens[:, 0])
    np.testing.assert_allclose(found.logprobs[:, 0], expected, atol=0.5)


def test_parameters_in_pieces(ragged):
    """As a training state holds a stack of which only the top layers train."""
    config, params = decode_cases.model(2)
    layers = jax.tree.map(lambda leaf: (leaf[:1], leaf[1:]), params["llm"]["layers"]["attn"])
    pieces = {**params["llm"], "layers": {**params["llm"]["layers"], "attn": layers}}
    _, whole = decode_cases.run(config, params, *ragged, max_new_tokens=7)
    _, found = decode_cases.run(config, {**params, "llm": pieces}, *ragged, max_new_tokens=7)
    np.testing.assert_array_equal(found.tokens, whole.tokens)


def test_leak_probe():
    """Changing one slot changes what may see it, and nothing else at all."""
    config, params = decode_cases.model(2)
    batch = cases.packed_batch(config)
    before = np.asarray(cases.all_logits(config, params, batch))
    sees = contract.may_see(batch["segment"], batch["position"])
    for slot in range(batch["text"].shape[1]):
        text = batch["text"].copy()
        text[:, slot] = (text[:, slot] + 101) % 512
        after = np.asarray(cases.all_logits(config, params, {**batch, "text": text}))
        changed = np.any(before != after, axis=-1)
        for b, segment in enumerate(batch["segment"]):
            there = segment >= 0
            expected = sees[b, :, slot] if segment[slot] else there  # the prefix: everything
            np.testing.assert_array_equal(changed[b, there], expected[there], err_msg=f"{b} {slot}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": np.array([4, 2])}, "5 images with a prompt of shape .* lengths of shape"),
        ({"min_new_tokens": 64}, "0 <= min_new_tokens < max_new_tokens"),
        ({"max_new_tokens": 0}, "0 <= min_new_tokens < max_new_tokens"),
        ({"banned_tokens": [512]}, "not all, of 0..511"),
        ({"banned_tokens": range(512)}, "not all, of 0..511"),
        ({"banned_tokens": [1], "sampler": decode.Beam(2)}, "do not ban EOS"),
        ({"sampler": decode.BestOf(2)}, "needs a key"),
        ({"cache_dtype": "int8"}, "expected one of"),
    ],
)
def test_what_does_not_fit(ragged, options, message):
    config, params = decode_cases.model(2)
    image, prompt, length = ragged
    arguments = {"image": image, "prompt": prompt, "length": length, **options}
    with pytest.raises(ValueError, match=message):
        decode.prefill(config, params, **arguments)


@pytest.mark.parametrize("prompts", [[], [[2, 5], []]])
def test_prompts_that_are_none(prompts):
    with pytest.raises(ValueError, match="pad_prompts"):
        decode.pad_prompts(prompts)
