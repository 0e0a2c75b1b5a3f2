"""Where in the model values stop being finite: the first place, for each example."""

import dataclasses
import functools

import jax
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib.model.first_not_finite import first_not_finite, place_of

CONFIG = cases.tiny_config(1)
MODEL_INPUTS = ("image", "text", "segment", "position")


def places(params: dict, batch: dict, config=CONFIG) -> list[str | None]:
    inputs = {name: batch[name] for name in MODEL_INPUTS}
    numbers = jax.jit(functools.partial(first_not_finite, config))(params, **inputs)
    return [place_of(config, int(number)) for number in numbers]


@pytest.fixture
def batch():
    return cases.packed_batch(CONFIG)


@pytest.fixture
def params():
    return cases.random_params(CONFIG)


def test_nothing_is_named_where_all_is_finite(params, batch):
    assert places(params, batch) == [None] * 4


def test_an_image_is_named_alone(params, batch):
    batch["image"][2, 5, 5] = np.nan
    assert places(params, batch) == [None, None, "the image itself", None]


@pytest.mark.parametrize(
    ("name", "layer", "place"),
    [
        ("img/Transformer/encoderblock/MlpBlock_0/Dense_1/kernel", 1, "layer 2 of 2 of the vision"),
        ("img/head/kernel", 0, "the projection of image tokens"),
        ("llm/layers/mlp/linear", 0, "layer 1 of 3 of the language"),
        ("llm/layers/mlp/linear", 2, "layer 3 of 3 of the language"),
    ],
)
def test_the_first_layer_is_named(params, batch, name, layer, place):
    flat = cases.flatten(params)
    flat[name][layer] = np.inf
    found = places(cases.unflatten(flat), batch)
    assert all(each.startswith(place) for each in found)


def test_a_product_that_float16_cannot_hold_is_named(params, batch):
    flat = cases.flatten(params)
    flat["llm/layers/mlp/gating_einsum"][1] *= 1e4
    assert places(cases.unflatten(flat), batch) == [None] * 4
    config = dataclasses.replace(CONFIG, dtype="float16")
    assert (
        places(cases.unflatten(flat), batch, config) == ["layer 2 of 3 of the language model"] * 4
    )
