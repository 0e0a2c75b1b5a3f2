"""The moving average of what trains: its values, what it is kept through, and where it is used."""

import jax
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import sharding, train
from paligemma_lib.testing import tiny_batch, tiny_tokenizer
from paligemma_lib.trainable import Select

CONFIG = cases.tiny_config(1)
DECAY = 0.5
STEPS = 4


def batch(seed: int) -> dict:
    return tiny_batch(tiny_tokenizer(), batch_size=4, captions=2, seed=seed)


def started(ema: float, trainable="attention"):
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    params = jax.device_put(cases.random_params(CONFIG), sharding.replicated(mesh))
    optimizer = train.make_optimizer("adamw", learning_rate=0.01, total_steps=STEPS, ema=ema)
    state = train.init_state(CONFIG, params, optimizer, trainable=trainable, mesh=mesh)
    return state, optimizer, train.make_train_step(CONFIG, optimizer, mesh=mesh)


def flat(params) -> dict[str, np.ndarray]:
    return {name: np.array(leaf) for name, leaf in cases.flatten(params).items()}


def test_the_average_is_that_of_the_steps():
    state, _, step = started(DECAY)
    want = flat(state.all_params())
    for k in range(STEPS):
        state, _ = step(state, batch(k))
        share = min(DECAY, (2 + k) / (11 + k))
        assert share < DECAY  # the beginning is forgotten faster
        now = flat(state.all_params())
        want = {name: share * old + (1 - share) * now[name] for name, old in want.items()}
    found = flat(state.averaged_params())
    for name, value in want.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
    moved = "llm/layers/attn/q_einsum/w"
    assert np.abs(found[moved] - flat(state.all_params())[moved]).max() > 1e-4


def test_training_is_the_same_with_and_without_it():
    with_it, _, step = started(DECAY)
    without, _, plain = started(0.0)
    for k in range(3):
        with_it, averaged = step(with_it, batch(k))
        without, metrics = plain(without, batch(k))
        # Two programs, which may round in other places.
        assert float(averaged["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-5)
    for name, value in flat(without.averaged_params()).items():
        np.testing.assert_array_equal(flat(without.all_params())[name], value, err_msg=name)


def test_a_step_without_effect_moves_no_average():
    state, _, step = started(DECAY)
    state, _ = step(state, batch(0))
    before = flat(state.averaged_params())
    spoiled = batch(1)
    spoiled["image"][:] = np.nan
    state, metrics = step(state, spoiled)
    assert metrics["skipped_in_a_row"] == 1
    for name, value in flat(state.averaged_params()).items():
        np.testing.assert_array_equal(before[name], value, err_msg=name)


def test_what_trains_on_keeps_its_average():
    top = [Select("attention", 2)]
    state, optimizer, step = started(DECAY, top)
    state, _ = step(state, batch(0))
    before = flat(state.averaged_params())
    state = train.restage(state, optimizer, ["attention"])
    found = flat(state.averaged_params())
    for name, value in before.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    state, _ = step(state, batch(1))
    assert all(np.isfinite(value).all() for value in flat(state.averaged_params()).values())


def test_a_decay_out_of_range_is_an_error():
    with pytest.raises(ValueError, match="ema"):
        train.make_optimizer("sgd", learning_rate=1.0, total_steps=1, ema=1.0)
