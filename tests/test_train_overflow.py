"""Where gradients stop being finite, and for which examples, where losses are."""

import dataclasses

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import sharding
from paligemma_lib.train import init_state, make_optimizer
from paligemma_lib.train.overflow import make_overflow_search

CONFIG = dataclasses.replace(cases.tiny_config(1), dtype="float16")
MESH = sharding.make_mesh(devices=jax.devices()[:1])
FIND = make_overflow_search(CONFIG, mesh=MESH)
LARGEST = 24  # powers of two of the loss scale


def narrowed(tower: str, layer: int, by: float = 1e3) -> dict:
    """Parameters whose values are as before, but whose gradients grow within a layer.

    The input of its MLP is divided by a number that the MLP's first matrix is multiplied by. On the
    way back, gradients are multiplied first.
    """
    flat = cases.flatten(cases.random_params(CONFIG))
    if tower == "llm":
        norm = flat["llm/layers/pre_ffw_norm/scale"]
        norm[layer] = (1 + norm[layer]) / by - 1  # scales are stored minus 1
        flat["llm/layers/mlp/gating_einsum"][layer] *= by
    else:
        block = "img/Transformer/encoderblock"
        for name in ("scale", "bias"):
            flat[f"{block}/LayerNorm_1/{name}"][layer] /= by
        flat[f"{block}/MlpBlock_0/Dense_0/kernel"][layer] *= by
    return cases.unflatten(flat)


def weighted(weights: list[float], same: bool = False) -> dict:
    """Four examples with those weights."""
    batch = cases.packed_batch(CONFIG)
    if same:
        batch = {name: np.repeat(array[:1], 4, axis=0) for name, array in batch.items()}
    supervised = (batch["segment"] > 0).astype(np.float32)
    return {**batch, "loss_weight": supervised * np.array(weights, np.float32)[:, None]}


def state_of(params: dict, trainable="all"):
    optimizer = make_optimizer("sgd", learning_rate=0.1, total_steps=9)
    state = init_state(CONFIG, params, optimizer, trainable=trainable, mesh=MESH)
    return dataclasses.replace(state, step=state.step + 1)


def first_found(state, batch, find=FIND):
    """What is found at the lowest power of two, as loss scale, at which anything is."""
    for power in range(LARGEST):
        scaled = dataclasses.replace(state, loss_scale=jnp.float32(2.0**power / 2))
        if (found := find(scaled, batch)) is not None:
            return found
    raise AssertionError("no scale makes gradients overflow")


@pytest.mark.parametrize(
    ("tower", "layer", "place"),
    [
        ("llm", 0, "layer 1 of 3 of the language model"),
        ("llm", 2, "layer 3 of 3 of the language model"),
        ("img", 1, "layer 2 of 2 of the vision model"),
    ],
)
def test_the_layer_and_the_example_are_named(tower, layer, place):
    found = first_found(state_of(narrowed(tower, layer)), weighted([1, 1, 64, 1]))
    assert (found.place, found.rows, found.is_complete) == (place, (2,), True)


def test_layers_are_counted_from_the_bottom_where_only_the_top_ones_train():
    from paligemma_lib.trainable import Select

    state = state_of(narrowed("llm", 1), [Select("llm", top_layers=2)])
    assert first_found(state, weighted([1, 1, 1, 64])).place == "layer 2 of 3 of the language model"


def test_a_sum_over_examples_may_overflow_where_none_does_alone():
    found = first_found(state_of(cases.random_params(CONFIG)), weighted([1, 1, 1, 1], same=True))
    assert found.rows == ()


def test_microbatches_are_searched_as_they_are_trained():
    find = make_overflow_search(CONFIG, mesh=MESH, microbatches=2)
    found = first_found(state_of(narrowed("llm", 1)), weighted([1, 64, 1, 1]), find)
    assert (found.place, found.rows) == ("layer 2 of 3 of the language model", (1,))


def test_the_search_ends_after_so_many_tries(monkeypatch):
    monkeypatch.setattr("paligemma_lib.train.overflow._MOST_TRIES", 2)
    found = first_found(state_of(narrowed("llm", 1)), weighted([64, 1, 1, 1]))
    assert (found.rows, found.is_complete) == ((), False)
    monkeypatch.setattr("paligemma_lib.train.overflow._MOST_TRIES", 4)
    wild = dataclasses.replace(state_of(narrowed("llm", 1)), loss_scale=jnp.float32(2**LARGEST))
    found = FIND(wild, weighted([1, 1, 1, 1]))  # all of them
    assert (found.rows, found.is_complete) == ((0, 1), False)


def test_nothing_is_found_where_gradients_are_finite():
    state = dataclasses.replace(state_of(cases.random_params(CONFIG)), loss_scale=jnp.float32(1))
    assert FIND(state, weighted([1, 1, 1, 1])) is None
