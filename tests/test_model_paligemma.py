"""What the whole model promises: masks, packing, types, chosen slots, caches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
import reference_numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib import model
from paligemma_lib.model import gemma, paligemma, vocabulary
from paligemma_lib.model.sight import Sight

CONFIG = cases.tiny_config(2)

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.fixture(scope="module")
def params():
    return cases.random_params(CONFIG)


@pytest.fixture(scope="module")
def batch():
    return cases.packed_batch(CONFIG)


@functools.partial(jax.jit, static_argnums=0)
def hidden_states(config, params, batch):
    return model.hidden_states(config, params, **batch)


def with_dtype(config, dtype):
    return dataclasses.replace(config, dtype=dtype)


def cast(params, dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def test_attention_mask_of_the_docstring():
    segment = np.array([[0, 0, 1, 1, 2, -1]], np.int32)
    position = np.array([[0, 1, 2, 3, 2, 0]], np.int32)
    expected = [
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 0],
        [1, 1, 1, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(model.attention_mask(segment, position, 1)[0], expected)
    assert model.source_positions(segment).tolist() == [[0, 0, 1, 2, 1, 4]]


@given(st.integers(1, 4), st.lists(st.integers(1, 4), max_size=4))
@settings(max_examples=50, deadline=None)
def test_mask_and_previous_slot_of_any_packing(prefix, suffixes):
    segment, position = np.full(24, -1, np.int32), np.zeros(24, np.int32)
    n = prefix + sum(suffixes)
    segment[:n] = np.repeat(np.arange(len(suffixes) + 1), [prefix, *suffixes])
    position[:n] = np.concatenate([np.arange(prefix), *(prefix + np.arange(n) for n in suffixes)])
    mask = np.asarray(model.attention_mask(segment[None], position[None], 0))[0]
    slots = np.asarray(model.source_positions(segment[None]))[0]
    for i in range(24):
        for j in range(24):
            assert mask[i, j] == reference_numpy.sees(segment, position, i, j)
        if segment[i] > 0:
            assert segment[slots[i]] in (0, segment[i])
            assert position[slots[i]] == position[i] - 1


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_packed_captions_equal_separate_ones(version):
    config = cases.tiny_config(version)
    params, packed = cases.random_params(config), cases.packed_batch(config)
    together = cases.all_logits(config, params, packed)
    for k in range(1, 4):
        alone = {name: value.copy() for name, value in packed.items()}
        rows = packed["segment"].max(axis=1) >= k
        for b in np.flatnonzero(rows):
            kept = np.flatnonzero(np.isin(packed["segment"][b], (0, k)))
            for name, empty in (("text", 0), ("segment", -1), ("position", 0)):
                alone[name][b] = empty
                alone[name][b, : len(kept)] = packed[name][b, kept]
        scores = cases.all_logits(config, params, alone)
        for b in np.flatnonzero(rows):
            kept = np.flatnonzero(np.isin(packed["segment"][b], (0, k)))
            difference = np.abs(together[b, kept] - scores[b, : len(kept)])
            assert difference.max() < 1e-4


def test_padding_and_other_captions_have_no_influence(params, batch):
    changed = batch["text"].copy()
    touched = (batch["segment"] == -1) | (batch["segment"] == 2)
    changed[touched] = (changed[touched] + 7) % CONFIG.language.vocab_size
    before = np.asarray(cases.all_logits(CONFIG, params, batch))
    after = np.asarray(cases.all_logits(CONFIG, params, {**batch, "text": changed}))
    np.testing.assert_array_equal(before[~touched], after[~touched])
    assert np.any(before[touched] != after[touched])


def test_chosen_slots_are_those_of_all(params, batch):
    slots = np.array([[3, 0, 3], [1, 2, 9], [4, 4, 4], [23, 0, 5]], np.int32)
    everywhere = hidden_states(CONFIG, params, batch)
    chosen = hidden_states(CONFIG, params, {**batch, "indices": slots})
    expected = np.take_along_axis(everywhere, slots[..., None], axis=1)
    np.testing.assert_allclose(chosen, expected, atol=1e-5)


def test_an_id_outside_the_vocabulary_shows(params, batch):
    text = batch["text"].copy()
    text[0, 1] = CONFIG.language.vocab_size
    scores = cases.all_logits(CONFIG, params, {**batch, "text": text})
    assert np.isnan(scores[0]).all() and np.isfinite(scores[1:]).all()


# Largest difference over largest logit: measured 0.011 and 0.0012; the bound leaves room.
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.03), ("float16", 0.004)])
@pytest.mark.parametrize("version", cases.VERSIONS)
def test_activations_in_16_bits(version, dtype, tolerance):
    config = cases.tiny_config(version)
    params, batch = cases.random_params(config), cases.packed_batch(config)
    there = batch["segment"] >= 0
    expected = np.asarray(cases.all_logits(config, params, batch))[there]
    got = cases.all_logits(with_dtype(config, dtype), params, batch)
    assert got.dtype == jnp.float32
    difference = np.abs(np.asarray(got)[there] - expected).max() / np.abs(expected).max()
    assert 1e-4 < difference < tolerance


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_parameters_in_16_bits_are_their_values_in_float32(params, batch, dtype):
    narrow = cast(params, dtype)
    got = cases.all_logits(CONFIG, narrow, batch)
    expected = cases.all_logits(CONFIG, cast(narrow, "float32"), batch)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_float16_activations_survive_a_residual_stream_beyond_float16(params, batch):
    image = {**params["img"], "head": {**params["img"]["head"]}}
    image["head"]["kernel"] = image["head"]["kernel"] * 1e3
    table = params["llm"]["embedder"]["input_embedding"]
    large = {"img": image, "llm": {**params["llm"], "embedder": {"input_embedding": table * 1e5}}}
    expected = np.asarray(hidden_states(CONFIG, large, batch))
    got = hidden_states(with_dtype(CONFIG, "float16"), large, batch)
    assert np.abs(vocabulary.embed(CONFIG, large["llm"], batch["text"])).max() > 65504
    assert np.abs(np.asarray(got, np.float32) - expected).max() < 0.01 * np.abs(expected).max()


def test_prefill_and_extend_equal_the_whole_sequence(params):
    """Two captions for each of two images; the keys of image and prefix are stored once."""
    config, rng = CONFIG, np.random.default_rng(2)
    image = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    prompt = rng.integers(4, 512, (2, 3)).astype(np.int32)
    captions = rng.integers(4, 512, (4, 5)).astype(np.int32)
    front = config.vision.num_tokens + 3

    @jax.jit
    def prefill(params, image, prompt):
        image_tokens = model.siglip.encode(config, params["img"], image)
        x = jnp.concatenate([image_tokens, vocabulary.embed(config, params["llm"], prompt)], axis=1)
        position = jnp.broadcast_to(jnp.arange(front), (2, front))
        sight = Sight(jnp.zeros((2, front), jnp.int32))
        llm, keep = params["llm"], lambda _, own: own
        return gemma.apply_layers(config, llm, x, position, sight, keep=keep)[1]

    @jax.jit
    def extend(llm, tokens, past):
        rows, t = tokens.shape
        start = sum(keys.shape[2] for keys, _ in past)
        position = jnp.broadcast_to(start + jnp.arange(t), (rows, t))
        place = jnp.broadcast_to(jnp.arange(start + t), (rows, start + t))
        sight = Sight((place >= front).astype(jnp.int32), place, jnp.ones_like(position), position)
        x = vocabulary.embed(config, llm, tokens)
        x, own = gemma.apply_layers(config, llm, x, position, sight, past, keep=lambda _, own: own)
        return gemma.final_norm(config, llm, x), own

    past, seen = [prefill(params, image, prompt)], []
    for words in (captions[:, :2], captions[:, 2:3], captions[:, 3:]):
        hidden, own = extend(params["llm"], words, past)
        past.append(own)
        seen.append(hidden)
    assert [keys.shape[1:3] for keys, _ in past] == [(2, front), (4, 2), (4, 1), (4, 2)]

    whole = {
        "image": np.repeat(image, 2, axis=0),
        "text": np.concatenate([np.repeat(prompt, 2, axis=0), captions], axis=1),
        "segment": np.repeat([[0, 0, 0, 1, 1, 1, 1, 1]], 4, axis=0).astype(np.int32),
        "position": np.repeat(np.arange(8, dtype=np.int32)[None], 4, axis=0),
    }
    expected = hidden_states(config, params, whole)[:, 3:]
    np.testing.assert_allclose(jnp.concatenate(seen, axis=1), expected, atol=2e-5)


def test_only_the_top_layers_train(params, batch):
    """As a training state holds it: attention of layers 1 and 2 apart, the rest whole."""

    def loss(attention, params):
        llm = params["llm"]
        merged = {**params, "llm": {**llm, "layers": {**llm["layers"], "attn": attention}}}
        return jnp.sum(jnp.square(model.hidden_states(CONFIG, merged, **batch)))

    def loss_of_top(upper, lower, params):
        return loss(jax.tree.map(lambda *parts: parts, lower, upper), params)

    attention = params["llm"]["layers"]["attn"]
    lower = jax.tree.map(lambda leaf: leaf[:1], attention)
    upper = jax.tree.map(lambda leaf: leaf[1:], attention)
    everything = cases.flatten(jax.jit(jax.grad(loss))(attention, params))
    top = jax.jit(jax.grad(loss_of_top))(upper, lower, params)
    for name, gradient in cases.flatten(top).items():
        expected = everything[name][1:]
        np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())


def test_new_parameters_are_neither_dead_nor_wild():
    params = jax.jit(model.init, static_argnums=0)(CONFIG, jax.random.key(0, impl="rbg"))
    scores = cases.all_logits(CONFIG, params, cases.packed_batch(CONFIG))
    assert 0.1 < np.std(scores) < 3
    for name, leaf in cases.flatten(params).items():
        assert leaf.dtype == jnp.float32
        if name.startswith("llm") and leaf.ndim > 3:  # layers differ from each other
            assert not np.array_equal(leaf[0], leaf[1]), name


def test_rope_positions_go_on_after_the_image():
    position = np.array([[0, 1, 2], [0, 1, 1]], np.int32)
    got = paligemma.rope_position(position, 2)
    assert got.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 3]]
