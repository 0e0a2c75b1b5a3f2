"""Stages: what joins starts fresh, what goes on keeps its optimizer state, nothing is lost."""

import jax
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import sharding
from paligemma_lib.train import init_state, make_optimizer, restage
from paligemma_lib.trainable import Select

CONFIG = cases.tiny_config(1)
MESH = sharding.make_mesh(devices=jax.devices()[:1])
QUERY = "llm/layers/attn/q_einsum/w"
OPTIMIZER = make_optimizer("adamw", learning_rate=0.1, total_steps=9)


def start(what, dtype=np.float32):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), cases.random_params(CONFIG))
    params = jax.device_put(params, sharding.replicated(MESH))
    return params, init_state(CONFIG, params, OPTIMIZER, trainable=what, mesh=MESH)


def numbered(state):
    """The state with a number for every entry of the optimizer's state."""
    leaves, tree = jax.tree.flatten(state.opt_state)
    sizes = np.cumsum([0, *(leaf.size for leaf in leaves)])
    numbers = [
        jax.numpy.arange(first, first + leaf.size, dtype=leaf.dtype).reshape(leaf.shape)
        for first, leaf in zip(sizes[:-1], leaves, strict=True)
    ]
    object.__setattr__(state, "opt_state", jax.tree.unflatten(tree, numbers))
    return state


def moments(state, name):
    """The first moment of all parts, one after the other, and their counts of steps."""
    return (
        np.concatenate([each.mu for each in state.opt_state[name]]),
        [int(each.count) for each in state.opt_state[name]],
    )


def test_trained_is_float32_and_frozen_as_given():
    params, state = start("attention", np.float16)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.trained)} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.frozen)} == {"float16"}
    assert set(state.opt_state) == set(state.trained)
    np.testing.assert_array_equal(
        state.all_params()["llm"]["layers"]["attn"]["q_einsum"]["w"],
        cases.flatten(params)[QUERY].astype(np.float32),
    )


def test_the_given_parameters_stay_usable():
    params, state = start("all")
    own = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state.trained)}
    assert own.isdisjoint(leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(params))


def test_lower_layers_join_fresh():
    _, state = start(Select("attention", top_layers=1))
    old, (count,) = moments(numbered(state), QUERY)
    state = restage(state, OPTIMIZER, Select("attention", top_layers=3))
    new, counts = moments(state, QUERY)
    assert counts == [0, count]
    np.testing.assert_array_equal(new[2:], old)
    np.testing.assert_array_equal(new[:2], 0)


def test_layers_that_leave_take_their_state_along():
    _, state = start("attention")
    old, (count,) = moments(numbered(state), QUERY)
    state = restage(state, OPTIMIZER, [Select("attention", top_layers=2), "projector"])
    new, counts = moments(state, QUERY)
    assert counts == [count]
    np.testing.assert_array_equal(new, old[1:])
    assert state.opt_state["img/head/kernel"][0].count == 0
    assert state.frozen[QUERY][0].dtype == np.float32


@pytest.mark.parametrize("stages", [["all", "attention", "all"], [Select("llm", 1), "vision"]])
def test_parameters_survive_all_stages(stages):
    params, state = start("projector")
    for what in stages:
        state = restage(state, OPTIMIZER, what)
        assert set(state.opt_state) == set(state.trained)
    merged = cases.flatten(state.all_params())  # the leaves of tuples follow in order
    for name, expected in cases.flatten(params).items():
        parts = [leaf for key, leaf in merged.items() if key.startswith(name)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
