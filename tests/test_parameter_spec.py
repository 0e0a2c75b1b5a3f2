"""The table of parameters: what is stored, what trains, and rules that fit nothing."""

import jax
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import parameter_roles
from paligemma_lib.model import abstract_params, variants
from paligemma_lib.model.adapter_params import LowRank
from paligemma_lib.parameter_roles import role_of
from paligemma_lib.parameter_spec import abstract, parameter_spec
from paligemma_lib.trainable import Select

CONFIG = cases.tiny_config(1)
QUERY = "llm/layers/attn/q_einsum/w"
LINEAR = "llm/layers/mlp/linear"


def test_nothing_trains_unless_it_is_said():
    table = parameter_spec(CONFIG)
    assert {(spec.trains, spec.dtype) for spec in table.values()} == {("no", "")}
    shapes = jax.tree.map(lambda leaf: leaf.shape, abstract_params(CONFIG))
    assert jax.tree.map(lambda leaf: leaf.shape, abstract(table)) == shapes


def test_stages_are_united_and_what_trains_in_any_is_float32():
    stages = [Select("attention", top_layers=1), [Select("attention", top_layers=2), "projector"]]
    table = parameter_spec(CONFIG, trainable=stages, frozen="float16")
    assert (table[QUERY].trains, table[QUERY].dtype) == ("rows from 1", "float32")
    assert (table["img/head/bias"].trains, table["img/head/bias"].dtype) == ("whole", "float32")
    assert (table[LINEAR].trains, table[LINEAR].dtype) == ("no", "float16")


def test_small_numbers_of_bits_are_for_matrices():
    table = parameter_spec(CONFIG, frozen="nf4")
    assert table[LINEAR].dtype == table["llm/embedder/input_embedding"].dtype == "nf4"
    assert table["llm/final_norm/scale"].dtype == table["img/pos_embedding"].dtype == ""


def test_adapters_are_in_the_table():
    table = parameter_spec(CONFIG, trainable=["lora"], frozen="bfloat16", low_rank=LowRank(4))
    assert (table[QUERY].trains, table[QUERY].dtype) == ("rank 4", "bfloat16")
    assert table[LINEAR].trains == "no"
    place = "llm/layers/lora/q_proj"
    assert (table[f"{place}/a"].trains, table[f"{place}/a"].dtype) == ("whole", "float32")
    assert (table[f"{place}/scale"].trains, table[f"{place}/scale"].dtype) == ("no", "float32")
    assert abstract(table)["llm"]["layers"]["lora"]["q_proj"]["b"].shape == (3, 4, 64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainable": ["lora"]}, "matches no parameter"),
        ({"trainable": ["llm/layers/atn/.*"]}, "matches no parameter"),
        ({"low_rank": LowRank(4, targets=("atention",))}, "selects nothing"),
        ({"low_rank": LowRank(400)}, "above the smaller side"),
    ],
)
def test_a_rule_that_fits_nothing_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        parameter_spec(CONFIG, **changes)


def test_parameters_that_no_rule_covers_are_listed(monkeypatch):
    fewer = [role for role in parameter_roles.ROLES if "mlp" not in role.name]
    monkeypatch.setattr(parameter_roles, "ROLES", fewer)
    with pytest.raises(ValueError, match=r"6 parameters are covered by no rule .*gating_einsum"):
        parameter_spec(CONFIG)


@pytest.mark.parametrize("make", [variants.paligemma_3b, variants.paligemma2_10b])
def test_what_may_be_quantised_is_nearly_all(make):
    sizes = {True: 0, False: 0}
    for name, spec in parameter_spec(make()).items():
        sizes[role_of(name).is_matrix] += np.prod(spec.shape, dtype=np.int64)
    assert sizes[False] < 0.002 * sizes[True]
