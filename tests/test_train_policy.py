"""Policy gradients: weights of sampled captions, against the exact gradient of an expectation."""

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import paligemma_lib as pg
from paligemma_lib.data.text import pack
from paligemma_lib.train.policy import advantages, divergence, make_logprob_step, policy_weights
from paligemma_lib.trainable import merge

CONFIG = cases.tiny_config(1)
MESH = pg.sharding.make_mesh(devices=jax.devices()[:1])
CHOICES = 24  # tokens among which the policy of the test chooses

pytestmark = pytest.mark.usefixtures("strict_promotion")


def one_token_captions():
    """An example whose suffixes are all captions that can be chosen, each of one token."""
    row = pack([2, 9, 7, 108], [[30 + token] for token in range(CHOICES)], 4 + CHOICES)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    return {"image": image, **{key: array[None] for key, array in row.items()}}


def test_a_step_goes_the_way_of_the_expected_reward():
    """Of all captions, weighted by their probability, it is that way exactly."""
    params = jax.tree.map(jnp.asarray, cases.random_params(CONFIG))
    batch, rewards = one_token_captions(), np.random.default_rng(1).normal(size=CHOICES)
    reward = jnp.asarray(rewards, jnp.float32)
    sgd = pg.train.make_optimizer(
        "sgd", learning_rate=1.0, total_steps=2, schedule="constant", clip_norm=None
    )
    state = pg.train.init_state(
        CONFIG, jax.tree.map(jnp.copy, params), sgd, trainable="attention", mesh=MESH
    )
    trained, frozen = ({**each} for each in (state.trained, state.frozen))
    before = {name: np.asarray(parts[0]) for name, parts in trained.items()}

    def expected_reward(trained):
        inputs = {key: batch[key] for key in ("image", "text", "segment", "position")}
        logits = cases.all_logits(CONFIG, merge(trained, frozen), inputs)[0, 3]
        probability = jax.nn.softmax(logits[30 : 30 + CHOICES])
        return jnp.sum(probability * reward), probability

    slope, probability = jax.grad(expected_reward, has_aux=True)(trained)
    value = float(jnp.sum(probability * reward))
    # The policy chooses among these tokens alone, of which the others take no part: its gradient
    # of log p sums to zero over them, whatever the model says of the rest.
    weight = np.asarray(probability) * (rewards - value)
    batch["loss_weight"][0, 4:] = weight
    state, metrics = pg.train.make_train_step(CONFIG, sgd, mesh=MESH)(state, batch)
    assert float(metrics["supervised"]) == pytest.approx(np.abs(weight).sum(), rel=1e-5)
    for name, parts in state.trained.items():
        moved = (np.asarray(parts[0]) - before[name]) * np.abs(weight).sum()
        np.testing.assert_allclose(moved, slope[name][0], atol=2e-5, err_msg=name)


def test_weights_are_advantages_of_the_captions_they_stand_in():
    segment = np.array([[0, 0, 1, 1, 2, -1], [0, 1, 2, 2, 2, 2]])
    found = policy_weights(advantages(np.array([[3.0, 1.0], [0.0, 4.0]])), segment)
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0, 1, 1, -1, 0], [0, -2, 2, 2, 2, 2]]


rewards = arrays.arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6))


@given(rewards, st.floats(-1e6, 1e6))
def test_only_differences_between_captions_of_an_image_matter(rewards, more):
    found = advantages(rewards)
    assert np.abs(found.sum(axis=1)).max() < 1
    np.testing.assert_allclose(advantages(rewards + more), found, atol=0.5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_reward_that_is_not_finite_is_named(wrong):
    with pytest.raises(ValueError, match=f"caption 1 of image 0 is {wrong}"):
        advantages(np.array([[0, wrong], [0, 0]]))


@given(st.floats(-19, 0), st.floats(-19, 0))
def test_the_divergence_is_never_negative_and_has_the_gradient_that_is_used(logprob, start):
    apart, factor = divergence(np.float64(logprob), np.float64(start))
    assert apart >= 0 and (apart < 1e-9) == (abs(start - logprob) < 4e-5)
    h = 1e-4
    ends = [divergence(np.float64(logprob + sign * h), np.float64(start))[0] for sign in (1, -1)]
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(factor, rel=1e-3, abs=1e-6)


def test_a_model_far_from_its_start_has_a_finite_divergence():
    assert np.isfinite(divergence(np.float32(-200), np.float32(0))).all()


def test_log_probabilities_stand_where_their_tokens_do():
    params = jax.tree.map(jnp.asarray, cases.random_params(CONFIG))
    batch = cases.packed_batch(CONFIG)
    inputs = dict(batch)
    batch["loss_weight"] = (batch["segment"] > 0).astype(np.float32)
    batch["loss_weight"][1, 5] = 0  # one that is not asked for
    found = make_logprob_step(CONFIG, mesh=MESH)(params, batch)
    asked = batch["loss_weight"] > 0
    np.testing.assert_array_equal(found[~asked], 0)
    expected = cases.log_likelihood(CONFIG, params, inputs)
    np.testing.assert_allclose(found[asked], np.asarray(expected)[asked], atol=2e-5)
