"""The table of parameters."""

import jax
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import model
from paligemma_lib.model.overview import parameter_table

PARAMS = {
    "a": {"w": np.zeros((4, 3), np.float32)},
    "b": (np.zeros((1, 2**18), np.float16), np.zeros((2, 2**18), np.float32)),
}


def cells(table):
    return [line.split() for line in table.splitlines()]


def test_rows_and_totals():
    flags = {"a": {"w": False}, "b": (False, True)}
    rows = {row[0]: row[1:] for row in cells(parameter_table(PARAMS, flags))}
    assert rows["a/w"] == ["[4,", "3]", "float32", "12", "0.0", "frozen"]
    assert rows["b[0:1]"] == ["[1,", "262144]", "float16", "262,144", "0.5", "frozen"]
    assert rows["b[1:3]"] == ["[2,", "262144]", "float32", "524,288", "2.0", "trainable"]
    assert rows["trainable"] == ["524,288", "2.0"]
    assert rows["frozen"] == ["262,156", "0.5"]
    assert rows["total"] == ["786,444", "2.5"]


def test_every_parameter_of_a_model_that_is_not_loaded():
    config = model.variants.paligemma_3b()
    table = cells(parameter_table(model.abstract_params(config)))
    names = cases.flatten(model.abstract_params(config))
    assert [row[0] for row in table[1:]] == [*names, "total"]
    assert table[-1] == ["total", "2,923,335,408", "11,151.6"]


def test_sharding_is_shown():
    mesh = jax.make_mesh((1,), ("data",))
    spec = jax.sharding.PartitionSpec("data")
    array = jax.device_put(np.zeros(4), jax.sharding.NamedSharding(mesh, spec))
    assert "('data',)" in parameter_table({"w": array}).splitlines()[1]


def test_flags_of_another_structure_are_an_error():
    with pytest.raises(ValueError, match="a"):
        parameter_table(PARAMS, {"a": {"w": True}})
