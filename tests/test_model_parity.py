"""The model against an independent float64 NumPy model, and against the reference's results."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
import reference_numpy

SOFTCAP = {1: None, 2: 50.0}

pytestmark = pytest.mark.usefixtures("strict_promotion")


def reference_logits(version, params, batch):
    return reference_numpy.logits(cases.flatten(params), **batch, softcap=SOFTCAP[version])


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradients(config, params, batch, weight):
    """The reference's loss and its gradients for the attention weights, by name."""
    flat = cases.flatten(params)
    attention = {k: v for k, v in flat.items() if k.startswith("llm/layers/attn/")}

    def loss(trained):
        merged = cases.unflatten({**flat, **trained})
        likelihood = cases.log_likelihood(config, merged, batch)
        return -jnp.sum(likelihood * weight) / jnp.sum(weight)

    return jax.value_and_grad(loss)(attention)


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_logits_of_packed_captions_equal_float64(version):
    config = cases.tiny_config(version)
    params, batch = cases.random_params(config), cases.packed_batch(config)
    expected = reference_logits(version, params, batch)
    got = np.asarray(cases.all_logits(config, params, batch))
    there = batch["segment"] >= 0
    assert np.abs(expected[there]).max() > 1  # not trivially small
    np.testing.assert_allclose(got[there], expected[there], atol=2e-5, rtol=0)


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_loss_and_attention_gradients_equal_float64(version):
    config = cases.tiny_config(version)
    params, batch = cases.random_params(config), cases.packed_batch(config)
    flat = {k: np.asarray(v, np.float64) for k, v in cases.flatten(params).items()}
    text, segment, position = batch["text"], batch["segment"], batch["position"]
    weight = cases.loss_weight(segment)

    def expected_loss(flat):
        scores = reference_numpy.logits(flat, **batch, softcap=SOFTCAP[version])
        likelihood = reference_numpy.log_likelihood(scores, text, segment, position)
        return -np.sum(likelihood * weight) / np.sum(weight)

    loss, gradients = loss_and_gradients(config, params, batch, weight)
    np.testing.assert_allclose(loss, expected_loss(flat), rtol=1e-6)
    rng = np.random.default_rng(1)
    for name, gradient in gradients.items():
        direction = rng.normal(size=gradient.shape)
        direction += np.asarray(gradient) * np.linalg.norm(direction) / np.linalg.norm(gradient)
        step = 1e-5
        up = expected_loss({**flat, name: flat[name] + step * direction})
        down = expected_loss({**flat, name: flat[name] - step * direction})
        got = np.sum(np.asarray(gradient, np.float64) * direction)
        np.testing.assert_allclose(got, (up - down) / (2 * step), rtol=1e-4, err_msg=name)


def test_query_scale_and_final_softcap_equal_float64():
    config = cases.tiny_config(2)
    language = dataclasses.replace(config.language, query_scale=0.31, final_softcap=7.0)
    config = dataclasses.replace(config, language=language)
    params, batch = cases.random_params(config), cases.packed_batch(config)
    scores = reference_numpy.logits(cases.flatten(params), **batch, softcap=50.0, query_scale=0.31)
    expected = 7.0 * np.tanh(scores / 7.0)
    got = np.asarray(cases.all_logits(config, params, batch))
    there = batch["segment"] >= 0
    np.testing.assert_allclose(got[there], expected[there], atol=2e-5, rtol=0)


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_golden_logits(shared, version):
    params, batch, golden = cases.golden(shared, version)
    got = cases.all_logits(cases.tiny_config(version), params, batch)
    supervised = golden["batch/mask_loss"][:, 1:] == 1
    difference = np.abs(np.asarray(got)[:, :-1] - golden["logits"])[supervised]
    assert difference.max() < 2e-4  # of logits up to 34; sums of float32 in another order


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_golden_loss_and_attention_gradients(shared, version):
    params, batch, golden = cases.golden(shared, version)
    weight = cases.loss_weight(batch["segment"])
    loss, gradients = loss_and_gradients(cases.tiny_config(version), params, batch, weight)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-6)
    assert len(gradients) == 3
    for name, gradient in gradients.items():
        expected = golden[f"grad/{name}"]
        difference = np.abs(np.asarray(gradient) - expected).max()
        assert difference < 1e-4 * np.abs(expected).max(), name


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_the_float64_model_equals_the_golden_logits(shared, version):
    params, batch, golden = cases.golden(shared, version)
    got = reference_logits(version, params, batch)
    supervised = golden["batch/mask_loss"][:, 1:] == 1
    assert np.abs(got[:, :-1] - golden["logits"])[supervised].max() < 1e-4
