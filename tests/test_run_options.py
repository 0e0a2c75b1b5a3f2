"""Trees of plain values to configs: every wrong value is told, all of them at once."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.checkpoint.configuration import MODELS
from paligemma_lib.model.variants import DTYPES, REMAT
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.options import ConfigError, options_of, parse, unknown
from paligemma_lib.train.optimizer import OPTIMIZERS, SCHEDULES

OPTIONS = {each.name: each for each in options_of(RunConfig)}


def tree(name: str, value) -> dict:
    """{"optimizer": {"name": value}} for optimizer.name."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def problems(values) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(RunConfig, values, "mine.py")
    return caught.value.problems


def test_every_field_says_what_it_means():
    assert len(OPTIONS) >= 48
    assert [name for name, each in OPTIONS.items() if not each.meaning] == []


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("model.name", MODELS),
        ("model.dtype", DTYPES),
        ("model.frozen_dtype", ("empty", *DTYPES)),
        ("model.remat", REMAT),
        ("export_dtype", DTYPES),
        ("optimizer.name", OPTIMIZERS),
        ("optimizer.schedule", SCHEDULES),
    ],
)
def test_what_may_be_chosen_is_what_the_library_takes(name, choices):
    assert OPTIONS[name].expected == ", ".join(choices)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("batch_size", 0, "greater than or equal to 1"),
        ("batch_size", -1, "greater than or equal to 1"),
        ("batch_size", True, "a valid integer"),
        ("batch_size", 2.0, "a valid integer"),
        ("batch_size", "16", "a valid integer"),
        ("batch_size", None, "a valid integer"),
        ("epochs", 0, "greater than 0"),
        ("epochs", float("nan"), "a finite number"),
        ("epochs", float("inf"), "a finite number"),
        ("epochs", "2", "a valid number"),
        ("label_smoothing", 1.0, "less than 1"),
        ("label_smoothing", -0.1, "greater than or equal to 0"),
        ("data.min_crop_area", 1.1, "less than or equal to 1"),
        ("keep", 0, "greater than or equal to 1"),
        ("max_skipped", 0, "greater than or equal to 1"),
        ("lowercase", 1, "a valid boolean"),
        ("prompt", 3, "a valid string"),
        ("optimizer.name", "adam", "'sgd', 'momentum', 'adamw' or 'adafactor'"),
        ("workdir", "", "at least 1 character"),
        ("optimizer", 3, "an object"),
        ("stages", 3, "a valid array"),
        ("may_differ", [1], "a valid string"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_expected(name, value, expected):
    (problem,) = problems(tree(name, value))
    assert problem.startswith(name) and problem.endswith(expected), problem


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("batch_siz", "batch_size"),
        ("learning_rate", "optimizer.learning_rate"),
        ("optimizer.lerning_rate", "optimizer.learning_rate"),
        ("data.workdir", "workdir"),
    ],
)
def test_an_unknown_field_is_told_with_the_one_that_is_like_it(name, meant):
    assert problems(tree(name, 1)) == (f"{name}: there is no such field; did you mean {meant}?",)


def test_what_is_like_nothing_is_told_without_a_guess():
    assert unknown("xyzzy", list(OPTIONS)) == "xyzzy: there is no such field"


def test_everything_that_is_wrong_is_told_at_once():
    values = {"batch_size": 0, "epoch": 3, "optimizer": {"name": "adam", "warmup": 2}}
    with pytest.raises(ConfigError) as caught:
        parse(RunConfig, values | {"stages": [{"from_step": 0.5}]}, "mine.py")
    assert str(caught.value).splitlines()[0] == "mine.py has 5 problems:"
    assert {each.partition("=")[0].partition(":")[0] for each in caught.value.problems} == {
        "batch_size", "epoch", "optimizer.name", "optimizer.warmup", "stages[0].from_step",
    }  # fmt: skip


@given(st.dictionaries(st.sampled_from(sorted(OPTIONS)) | st.text(), st.none() | st.integers()))
def test_whatever_is_given_there_is_a_config_or_one_kind_of_error(fields):
    values: dict = {}
    for name, value in fields.items():
        values |= tree(name, value)
    try:
        config = parse(RunConfig, values)
    except ConfigError as error:
        assert error.problems
    else:
        assert parse(RunConfig, json.loads(json.dumps(config.to_dict()))) == config
