"""The model's matrix products: their matrices, in and out of the weights that hold them."""

import model_cases as cases
import numpy as np
import pytest

from paligemma_lib.model.projections import PROJECTIONS, adapter_name, column_norms, selected

PARAMS = cases.flatten(cases.random_params(cases.tiny_config(2)))


@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_matrix_comes_back_where_it_was(name):
    projection = PROJECTIONS[name]
    weight = PARAMS[projection.weight]
    layer = weight[1] if projection.is_stacked else weight
    depth, inputs, outputs = projection.shape(weight.shape)
    matrix = projection.matrix(layer)
    assert matrix.shape == (inputs, outputs) and depth == (
        len(weight) if layer.ndim < weight.ndim else 1
    )
    changed = layer.copy()
    projection.put(changed, 2 * matrix)
    np.testing.assert_array_equal(projection.matrix(changed), 2 * matrix)
    # Only this product's share has changed: twice it is four times the sum of its squares.
    others = np.sum(np.square(layer)) - np.sum(np.square(matrix))
    assert np.sum(np.square(changed)) == pytest.approx(others + 4 * np.sum(np.square(matrix)))


def test_a_matrix_is_what_the_product_multiplies_by():
    rng = np.random.default_rng(0)
    q, kv = PARAMS["llm/layers/attn/q_einsum/w"][0], PARAMS["llm/layers/attn/kv_einsum/w"][0]
    out = PARAMS["llm/layers/attn/attn_vec_einsum/w"][0]
    x, y = rng.normal(size=(3, 64)), rng.normal(size=(3, 4, 16))
    pairs = [
        ("llm/q_proj", q, np.einsum("bd,ndh->bnh", x, q), x),
        ("llm/k_proj", kv, np.einsum("bd,kdh->bkh", x, kv[0]), x),
        ("llm/v_proj", kv, np.einsum("bd,kdh->bkh", x, kv[1]), x),
        ("llm/o_proj", out, np.einsum("bnh,nhd->bd", y, out), y.reshape(3, -1)),
    ]
    for name, weight, product, inputs in pairs:
        found = inputs @ PROJECTIONS[name].matrix(weight)
        np.testing.assert_allclose(found, product.reshape(3, -1), atol=1e-5, err_msg=name)


def test_column_norms():
    matrix = np.asarray([[3, 0], [4, 2]], np.float32)
    np.testing.assert_allclose(column_norms(matrix), [5, 2])


def test_places():
    assert adapter_name("llm/k_proj") == "llm/layers/lora/k_proj"
    assert adapter_name("img/fc1") == "img/Transformer/encoderblock/lora/fc1"
    assert adapter_name("img/projector") == "img/head/lora/projector"


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["attention"], 4),
        (["all-linear"], 14),
        (["vision", "projector"], 7),
        (["llm/(q|v)_proj"], 2),
        (["mlp", "llm/gate_proj"], 3),
    ],
)
def test_presets_and_expressions_select(targets, count):
    assert len(selected(targets)) == count


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["attn"], "selects nothing. Give attention, mlp"),
        (["("], "not a regular expression"),
        ([], "nothing is selected"),
    ],
)
def test_what_selects_nothing_is_refused(targets, words):
    with pytest.raises(ValueError, match=words):
        selected(targets)
