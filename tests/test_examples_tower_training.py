"""Tests of the loop that trains towers."""

import itertools

import jax.numpy as jnp
import numpy as np
import tower_training


def squares(params, target):
    return ((params["w"] - target) ** 2).sum() + (params["b"] ** 2).sum()


def test_it_comes_near_the_least_loss_and_tells_on_the_way():
    params = {"w": jnp.zeros((2, 3)), "b": jnp.ones(3)}
    told = []
    mean = tower_training.train(
        params,
        squares,
        itertools.repeat((jnp.full((2, 3), 2.0),)),
        250,
        rate=0.1,
        weight_decay=0.0,
        tell=lambda number, seconds, mean: told.append((number, float(mean["w"][0, 0]))),
        tell_every=100,
    )
    np.testing.assert_allclose(mean["w"], 2, atol=0.1)
    np.testing.assert_allclose(mean["b"], 0, atol=0.1)
    assert [number for number, _ in told] == [100, 200, 250]
    assert told[0][1] < told[1][1] < told[2][1] < 2  # an average lags behind
    assert float(params["w"].sum()) == 0


def test_decay_is_of_matrices_alone():
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}

    def still(params, unused):
        return 0.0 * params["w"].sum() + 0.0 * params["b"].sum()

    mean = tower_training.train(
        params,
        still,
        [(0,)] * 20,
        20,
        rate=0.1,
        weight_decay=0.5,
        tell=lambda *told: None,
        tell_every=100,
    )
    assert float(mean["w"].max()) < 0.99
    np.testing.assert_array_equal(mean["b"], 1)
