"""Which parameters train: presets, patterns, top layers, splitting and merging."""

import itertools

import jax
import model_cases as cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib import model, trainable
from paligemma_lib.model import variants
from paligemma_lib.trainable import Select, merge, split, trained_rows

CONFIG = cases.tiny_config(2)
ABSTRACT = model.abstract_params(CONFIG)
NAMES = sorted(cases.flatten(ABSTRACT))


def count(config, what):
    flat = cases.flatten(model.abstract_params(config))
    rows = trained_rows(model.abstract_params(config), what)
    return sum(flat[name].size for name in rows)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(variants.paligemma_3b(), 169_869_312), (variants.paligemma2_3b(), 368_050_176)],
)
def test_the_recipe_trains_attention_alone(config, parameters):
    assert count(config, "attention") == parameters


def test_presets_are_groups_of_the_model():
    presets = [preset for preset in trainable.PRESETS if preset != "lora"]  # see test_low_rank
    groups = {preset: set(trained_rows(ABSTRACT, preset)) for preset in presets}
    assert groups["attention"] == {n for n in NAMES if n.startswith("llm/layers/attn/")}
    assert groups["llm"] == {n for n in NAMES if n.startswith("llm/")}
    assert groups["projector"] == {"img/head/kernel", "img/head/bias"}
    assert groups["vision"] == {n for n in NAMES if n.startswith("img/")} - groups["projector"]
    assert groups["all"] == set(NAMES)


def test_several_selections_are_united():
    rows = trained_rows(ABSTRACT, [Select("attention", top_layers=1), "projector", r"llm/final.*"])
    assert rows == {
        "img/head/bias": 0,
        "img/head/kernel": 0,
        "llm/final_norm/scale": 0,
        "llm/layers/attn/attn_vec_einsum/w": 2,
        "llm/layers/attn/kv_einsum/w": 2,
        "llm/layers/attn/q_einsum/w": 2,
    }
    both = trained_rows(ABSTRACT, [Select("attention", 1), Select("attention", 2)])
    assert set(both.values()) == {1}


def test_top_layers_leave_out_what_lies_below_them():
    rows = trained_rows(ABSTRACT, Select("all", top_layers=1))
    left_out = set(NAMES) - set(rows)
    assert left_out == {
        "img/embedding/bias",
        "img/embedding/kernel",
        "img/pos_embedding",
        "llm/embedder/input_embedding",
    }


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("attn", "matches no parameter.*attention, llm"),
        (["attention", "lora.*"], "'lora.*'"),
        ("llm/(", "not a regular expression"),
        ([], "nothing to train"),
        (Select("attention", top_layers=4), r"stacks of \[3\] layers"),
        (Select("attention", top_layers=0), r"stacks of \[3\] layers"),
        (Select("projector", top_layers=1), "no stacked layers"),
    ],
)
def test_what_selects_nothing_is_refused(what, message):
    with pytest.raises(ValueError, match=message):
        trained_rows(ABSTRACT, what)


@given(
    rows=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3)),
    again=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3)),
)
@settings(max_examples=50, deadline=None)
def test_split_and_merge_lose_nothing(rows, again):
    params = {name: np.arange(12.0).reshape(3, 4) for name in NAMES}
    trained, frozen = split(cases.unflatten(params), rows)
    for name in NAMES:
        here = sum(len(part) for part in trained.get(name, ()))
        assert here == 3 - rows.get(name, 3)
    trained, frozen = split(merge(trained, frozen), again)
    merged = cases.flatten(merge(trained, frozen))  # the leaves of tuples follow in order
    for name in NAMES:
        parts = [leaf for key, leaf in merged.items() if key.startswith(name)]
        assert all(len(part) for part in parts)
        np.testing.assert_array_equal(np.concatenate(parts), params[name])


def test_what_is_not_cut_is_not_copied():
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), ABSTRACT)
    trained, frozen = split(params, trained_rows(params, "attention"))
    before = cases.flatten(params)
    for name, (part,) in itertools.chain(trained.items(), frozen.items()):
        assert part is before[name]


def test_arrays_on_devices_are_cut_where_they_lie():
    params = {"llm": {"layers": {"mlp": {"linear": jax.numpy.arange(12.0).reshape(3, 2, 2)}}}}
    trained, frozen = split(params, {"llm/layers/mlp/linear": 2})
    assert trained["llm/layers/mlp/linear"][0].shape == (1, 2, 2)
    assert (
        frozen["llm/layers/mlp/linear"][0].sharding == trained["llm/layers/mlp/linear"][0].sharding
    )
