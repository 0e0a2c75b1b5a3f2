"""The loss in chunks, against all logits at once and against the reference's loss."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import model, testing
from paligemma_lib.train import likelihood, loss

ATTENTION = "llm/layers/attn/q_einsum/w"
SOME = (ATTENTION, "llm/embedder/input_embedding", "img/head/kernel")

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(likelihood, "POSITIONS", 8)
    monkeypatch.setattr(likelihood, "_ROWS", 200)  # 512 tokens in chunks of 128


def batch_of(captions=3, seed=0, **sizes):
    tokenizer = testing.tiny_tokenizer()
    return testing.tiny_batch(tokenizer, captions=captions, seed=seed, **sizes)


def mean_loss(config, params, batch, smoothing, z_loss=0.0):
    nll, weight = loss.token_losses(config, params, batch, smoothing, z_loss)
    return jnp.sum(nll * weight) / jnp.sum(weight)


def plain_loss(config, params, batch, smoothing, z_loss=0.0):
    """The same from all logits at once."""
    inputs = {key: batch[key] for key in ("image", "text", "segment", "position")}
    hidden = model.hidden_states(
        config, params, **inputs, indices=model.source_positions(batch["segment"])
    )
    logits = model.logits(config, params, hidden)
    likelihood = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(likelihood, batch["text"][..., None], axis=-1)[..., 0]
    nll = -(1 - smoothing) * picked - smoothing * jnp.mean(likelihood, axis=-1)
    nll += z_loss * jnp.square(jax.nn.logsumexp(logits, axis=-1))
    return jnp.sum(nll * batch["loss_weight"]) / jnp.sum(batch["loss_weight"])


def value_and_gradients(function, config, names, params, batch, smoothing):
    chunks = (
        likelihood.POSITIONS,
        likelihood._ROWS,
    )  # read while it is traced, so it is compiled for them
    return jitted(chunks, function, config, names, params, batch, smoothing)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 6))
def jitted(chunks, function, config, names, params, batch, smoothing):
    del chunks
    flat = cases.flatten(params)

    def of(trained):
        return function(config, cases.unflatten({**flat, **trained}), batch, smoothing)

    return jax.value_and_grad(of)({name: flat[name] for name in names})


def assert_close(got, expected, rtol):
    np.testing.assert_allclose(got[0], expected[0], rtol=rtol)
    for name, gradient in expected[1].items():
        difference = np.linalg.norm(got[1][name] - gradient)
        assert difference < rtol * np.linalg.norm(gradient), name


def test_z_loss_has_the_value_and_the_gradients_of_its_definition(small_chunks):
    config = cases.tiny_config(1)
    params, batch = cases.random_params(config), batch_of()
    got, expected, without = (
        value_and_gradients(functools.partial(function, z_loss=z), config, SOME, params, batch, 0.1)
        for function, z in ((mean_loss, 0.03), (plain_loss, 0.03), (plain_loss, 0.0))
    )
    assert_close(got, expected, 1e-5)
    assert expected[0] > 1.01 * without[0]


@pytest.mark.parametrize(("names", "smoothing"), [((ATTENTION,), 0.0), (SOME, 0.1)])
def test_chunks_equal_all_logits_at_once(small_chunks, names, smoothing):
    config = cases.tiny_config(1)
    params, batch = cases.random_params(config), batch_of()
    got = value_and_gradients(mean_loss, config, names, params, batch, smoothing)
    expected = value_and_gradients(plain_loss, config, names, params, batch, smoothing)
    assert_close(got, expected, 1e-5)


def test_final_softcap_is_part_of_the_gradient(small_chunks):
    config = cases.tiny_config(2)
    language = dataclasses.replace(config.language, final_softcap=2.0)
    config = dataclasses.replace(config, language=language)
    params, batch, names = cases.random_params(config), batch_of(), (ATTENTION,)
    got = value_and_gradients(mean_loss, config, names, params, batch, 0.0)
    expected = value_and_gradients(plain_loss, config, names, params, batch, 0.0)
    assert_close(got, expected, 1e-5)


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_golden_loss_and_attention_gradients(shared, version):
    config = cases.tiny_config(version)
    params, batch, golden = cases.golden(shared, version)
    batch["loss_weight"] = cases.loss_weight(batch["segment"])
    names = tuple(name for name in cases.flatten(params) if name.startswith("llm/layers/attn/"))
    value, gradients = value_and_gradients(mean_loss, config, names, params, batch, 0.0)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-6)
    for name in names:
        expected = golden[f"grad/{name}"]
        assert np.abs(gradients[name] - expected).max() < 1e-4 * np.abs(expected).max(), name


def test_packed_captions_equal_separate_ones():
    config, names = cases.tiny_config(1), SOME
    params, packed = cases.random_params(config), batch_of(captions=3, batch_size=2, text_len=64)
    rows = []
    for example, segment in enumerate(packed["segment"]):
        for k in range(1, 4):
            kept = (segment == 0) | (segment == k)
            row = {"image": packed["image"][example]}
            for key in ("text", "segment", "position", "loss_weight"):
                fill = -1 if key == "segment" else 0
                values = packed[key][example][kept]
                if key == "segment":
                    values = np.minimum(values, 1)
                row[key] = np.pad(values, (0, 64 - len(values)), constant_values=fill)
            rows.append(row)
    separate = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    got = value_and_gradients(mean_loss, config, names, params, packed, 0.0)
    expected = value_and_gradients(mean_loss, config, names, params, separate, 0.0)
    assert_close(got, expected, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.02), ("float16", 0.003)])
def test_16_bit_activations_stay_close(dtype, tolerance):
    config, names = cases.tiny_config(1), SOME
    params, batch = cases.random_params(config), batch_of()
    low = dataclasses.replace(config, dtype=dtype)
    got = value_and_gradients(mean_loss, low, names, params, batch, 0.0)
    expected = value_and_gradients(mean_loss, config, names, params, batch, 0.0)
    assert got[0].dtype == jnp.float32
    np.testing.assert_allclose(got[0], expected[0], rtol=tolerance)
    for name in names:
        difference = np.linalg.norm(got[1][name] - expected[1][name])
        assert difference < 5 * tolerance * np.linalg.norm(expected[1][name]), name


def test_logits_are_never_held_whole():
    config = cases.tiny_config(1)
    language = dataclasses.replace(config.language, vocab_size=65_536)
    config = dataclasses.replace(config, language=language)
    params = model.abstract_params(config)
    batch = batch_of(batch_size=16, text_len=128)
    names = (ATTENTION,)
    compiled = jitted.lower((), mean_loss, config, names, params, batch, 0.0).compile()
    all_logits = 16 * 128 * 65_536 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < all_logits / 3
    plain = jitted.lower((), plain_loss, config, names, params, batch, 0.0).compile()
    assert plain.memory_analysis().temp_size_in_bytes > all_logits
