"""New adapters: their shapes, their values, and their places among the parameters."""

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from low_rank_cases import random_adapters

from paligemma_lib.model import abstract_params, variants
from paligemma_lib.model.adapter_params import (
    LowRank,
    abstract_adapters,
    adapters_of,
    init_adapters,
    with_adapters,
)

PARAMS = jax.tree.map(jnp.asarray, cases.random_params(cases.tiny_config(1)))


def test_shapes_of_the_published_model():
    options = LowRank(16, targets=("attention", "projector"), dora=True)
    shapes = abstract_adapters(abstract_params(variants.paligemma_3b()), options)
    found = {name: leaf.shape for name, leaf in shapes.items()}
    assert len(found) == 5 * 4
    assert found["llm/layers/lora/v_proj/a"] == (18, 2048, 16)
    assert found["llm/layers/lora/v_proj/b"] == (18, 16, 256)
    assert found["llm/layers/lora/v_proj/magnitude"] == (18, 256)
    assert found["img/head/lora/projector/a"] == (1, 1152, 16)
    assert found["img/head/lora/projector/scale"] == (1,)


@pytest.mark.parametrize("parts", [1, 2])
def test_new_arrays_are_those_of_their_shapes(parts):
    options = LowRank(4, 8.0, ("all-linear",), dora=True)
    params = PARAMS
    if parts == 2:  # of a stack whose top layers train
        params = jax.tree.map(lambda leaf: (leaf[:1], leaf[1:]) if len(leaf) == 3 else leaf, PARAMS)
    made = init_adapters(params, options, jax.random.key(1))
    wanted = abstract_adapters(PARAMS, options)
    assert {n: (x.shape, x.dtype) for n, x in made.items()} == {
        n: (x.shape, x.dtype) for n, x in wanted.items()
    }
    a = made["llm/layers/lora/down_proj/a"]  # [3, 128, 4]
    assert 0.95 / 128**0.5 < np.abs(a).max() <= 1 / 128**0.5
    assert not np.any(made["llm/layers/lora/down_proj/b"])
    linear = PARAMS["llm"]["layers"]["mlp"]["linear"]
    norms = made["llm/layers/lora/down_proj/magnitude"]
    np.testing.assert_allclose(norms, np.linalg.norm(linear, axis=1), rtol=1e-5)


def test_an_array_hangs_on_key_and_name_alone():
    one = init_adapters(PARAMS, LowRank(4, targets=("attention",)), jax.random.key(1))
    more = init_adapters(PARAMS, LowRank(4, targets=("all-linear",)), jax.random.key(1))
    for name, array in one.items():
        np.testing.assert_array_equal(array, more[name])
    other = init_adapters(PARAMS, LowRank(4), jax.random.key(2))
    assert np.any(other["llm/layers/lora/q_proj/a"] != one["llm/layers/lora/q_proj/a"])
    assert np.any(one["llm/layers/lora/q_proj/a"] != one["llm/layers/lora/k_proj/a"])


def test_adapters_go_in_and_out_of_parameters():
    adapters = random_adapters(PARAMS)
    adapted = with_adapters(PARAMS, adapters)
    assert adapters_of(PARAMS) == {} and set(adapters_of(adapted)) == set(adapters)
    others = random_adapters(PARAMS, LowRank(2))
    assert adapters_of(with_adapters(adapted, others)).keys() == others.keys()
    same = adapted["llm"]["layers"]["mlp"]["linear"]
    assert same is PARAMS["llm"]["layers"]["mlp"]["linear"]


def test_a_rank_above_a_matrix_names_the_matrices():
    with pytest.raises(ValueError, match=r"rank 32 .* 2 matrices: llm/k_proj is 64 x 16; llm/v_p"):
        abstract_adapters(PARAMS, LowRank(32))


@pytest.mark.parametrize("options", [(0,), (True,), (4.0,), (4, 0), (4, -1.0), (4, float("nan"))])
def test_rank_and_alpha_are_in_bounds(options):
    with pytest.raises(ValueError, match="LowRank: (rank|alpha)=.*, expected a"):
        LowRank(*options)
