"""Prefill and the token loop: what neither neighbours nor k change, ends, states, arguments."""

import dataclasses

import decode_cases
import jax
import numpy as np
import pytest
from decode_cases import ROOM, SAMPLERS

from paligemma_lib import decode
from paligemma_lib.batch import EOS, PAD
from paligemma_lib.model import gemma

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.fixture(scope="module")
def ragged():
    return decode_cases.ragged_images()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_neighbours_prompt_padding_and_k_change_nothing(sampler, ragged):
    config, params = decode_cases.model(2)
    image, prompt, length = ragged
    keys = decode.image_keys(jax.random.key(1), range(5))
    options = {
        "sampler": sampler,
        "max_new_tokens": ROOM,
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
        sampler=decode.BestOf(3),
        keys=decode.image_keys(jax.random.key(0), range(5)),
        max_new_tokens=ROOM,
        banned_tokens=decode_cases.all_but(EOS, *decode_cases.LETTERS),
    )
    ended = np.cumsum(found.tokens == EOS, axis=-1) - (found.tokens == EOS) > 0
    assert ended.any() and not ended.all()
    assert np.all(found.tokens[ended] == PAD) and np.all(found.logprobs[ended] == 0)
    assert np.all(found.tokens[~ended] != PAD) and np.all(found.logprobs[~ended] < 0)
    assert np.all(np.diff(found.score) <= 0)


def test_stops_when_all_rows_have_ended(ragged):
    config, params = decode_cases.model(2)
    options = {"max_new_tokens": ROOM, "banned_tokens": decode_cases.all_but(EOS)}
    state, found = decode_cases.run(config, params, *ragged, **options, min_new_tokens=0)
    assert state.step == 1
    assert np.all(found.tokens[:, 0, 0] == EOS)
    beams, _ = decode_cases.run(config, params, *ragged, sampler=decode.Beam(2, nbest=1), **options)
    assert beams.step == 1


@pytest.mark.parametrize("sampler", [decode.Greedy(), decode.Beam(3)])
def test_no_end_before_the_minimum(ragged, sampler):
    config, params = decode_cases.model(2)
    _, found = decode_cases.run(
        config,
        params,
        *ragged,
        sampler=sampler,
        max_new_tokens=ROOM,
        min_new_tokens=5,
        banned_tokens=decode_cases.all_but(EOS, 4),
    )
    written = np.sum(found.tokens[:, 0] != PAD, axis=-1)
    assert np.all(written > 5) and np.all(found.tokens[:, 0, :5] == 4)


def test_one_token_is_room_enough(ragged):
    config, params = decode_cases.model(2)
    state, one = decode_cases.run(config, params, *ragged, max_new_tokens=1)
    _, many = decode_cases.run(config, params, *ragged, max_new_tokens=ROOM)
    assert state.step == 1
    np.testing.assert_array_equal(one.tokens[..., 0], many.tokens[..., 0])


def test_tokens_so_far_grow(ragged):
    config, params = decode_cases.model(2)
    options = {"max_new_tokens": ROOM, "min_new_tokens": 6, "banned_tokens": [PAD]}
    for sampler in (decode.Greedy(), decode.Beam(3)):
        state = decode.prefill(config, params, *ragged, sampler=sampler, **options)
        for step, more in ((1, 3), (4, 2), (6, 5)):
            assert state.step == step
            so_far = np.asarray(decode.tokens_so_far(state))
            assert np.all(so_far[:, :step] != PAD) and np.all(so_far[:, step:] == PAD)
            assert not decode.finished(state)
            state = decode.extend(config, params, state, more)
        assert state.step == ROOM and decode.finished(state)


def test_a_state_may_be_extended_twice(ragged):
    config, params = decode_cases.model(2)
    state = decode.prefill(config, params, *ragged, max_new_tokens=ROOM)
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
            sampler=decode.Sample(top_p=0.9),
            keys=decode.image_keys(jax.random.key(seed), range(5)),
            max_new_tokens=ROOM,
            min_new_tokens=seed,
            banned_tokens=[seed],
        )
    assert traced == [(5, 16 + 6, 64), (5, 1, 64)]


def test_keys_and_values_of_image_and_prompt_are_stored_once(ragged):
    config, params = decode_cases.model(2)

    @jax.eval_shape
    def state():
        options = {"sampler": decode.Beam(4), "max_new_tokens": 10}
        return decode.prefill(config, params, *ragged, **options)

    assert [leaf.shape for leaf in state.prompt.cache] == [(3, 5, 16 + 6, 2, 16)] * 2
    assert [leaf.shape for leaf in state.cache] == [(3, 5 * 4, 9, 2, 16)] * 2


def test_parameters_in_pieces(ragged):
    """As a training state holds a stack of which only the top layers train."""
    config, params = decode_cases.model(2)
    layers = jax.tree.map(lambda leaf: (leaf[:1], leaf[1:]), params["llm"]["layers"]["attn"])
    parts = {**params["llm"], "layers": {**params["llm"]["layers"], "attn": layers}}
    _, whole = decode_cases.run(config, params, *ragged, max_new_tokens=ROOM)
    _, found = decode_cases.run(config, {**params, "llm": parts}, *ragged, max_new_tokens=ROOM)
    np.testing.assert_array_equal(found.tokens, whole.tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": np.array([4, 2])}, "5 images with a prompt of shape .* lengths of shape"),
        ({"min_new_tokens": 64}, "0 <= min_new_tokens < max_new_tokens"),
        ({"max_new_tokens": 0}, "max_new_tokens=0, expected a whole number from 1"),
        ({"max_new_tokens": 8.0}, "max_new_tokens=8.0, expected a whole number"),
        ({"max_new_tokens": True}, "max_new_tokens=True, expected a whole number"),
        ({"min_new_tokens": -1}, "min_new_tokens=-1"),
        ({"banned_tokens": [512]}, "banned_tokens=512, expected a whole number from 0 to 511"),
        ({"banned_tokens": ["a"]}, "banned_tokens='a', expected a whole number"),
        ({"length": np.array([4, 2, 6, 1, 7])}, "lengths of prompts from 1 to 7, expected 1 to 6"),
        ({"length": np.array([4, 2, 6, 0, 4])}, "lengths of prompts from 0"),
        ({"prompt": np.full((5, 6), -100)}, "text has the id -100 in example 0, position 0"),
        ({"prompt": np.ones((5, 6))}, "prompt is float64"),
        ({"keys": 3}, "keys=3"),
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
