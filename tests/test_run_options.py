"""Trees of plain values: all that is wrong is told, and nothing is taken for something else."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from paligemma_lib.run import RunConfig, StageConfig
from paligemma_lib.run.options import ConfigError, Names, config, options_of, parse, unknown

DEFAULTS = RunConfig().to_dict()
NAMES = [each.name for each in options_of(RunConfig)]


@config
class Inner:
    share: float = Field(default=0.5, gt=0, lt=1)
    """of everything"""


@config
class Outer:
    count: int = Field(default=3, ge=1)
    """how many"""
    switch: bool = False
    names: Names = ()
    inner: Inner = Inner()
    items: tuple[Inner, ...] = ()


def problems_of(values, kind=Outer):
    with pytest.raises(ConfigError) as caught:
        parse(kind, values, "mine.py")
    head, *lines = str(caught.value).splitlines()
    assert lines == [f"  {each}" for each in caught.value.problems]
    count = len(lines)
    assert head == f"mine.py has {f'{count} problems' if count > 1 else 'a problem'}:"
    return list(caught.value.problems)


def nested(name, value):
    """The field of a dotted name, alone."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def value_at(values, name):
    for part in name.split("."):
        values = values[part]
    return values


def test_python_is_told_as_files_are():
    with pytest.raises(ConfigError) as caught:
        Outer(cuont=4, count=0)
    assert set(caught.value.problems) == {
        "count=0: expected greater than or equal to 1",
        "cuont: unknown field; did you mean count?",
    }
    with pytest.raises(ConfigError, match="batch_size=0: expected"):
        dataclasses.replace(RunConfig(), batch_size=0)


def test_what_is_not_named_has_its_default():
    assert parse(Outer, {}) == Outer()
    assert parse(Outer, {"inner": {}, "items": [{}]}) == Outer(items=(Inner(),))


def test_a_text_alone_is_one_of_several():
    assert parse(Outer, {"names": "one"}).names == ("one",)
    assert parse(Outer, {"names": ["one", "two"]}).names == ("one", "two")
    assert problems_of({"names": ["one", 2]}) == ["names[1]=2: expected a valid string"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"count": 0}, "count=0: expected greater than or equal to 1"),
        ({"count": True}, "count=True: expected a valid integer"),
        ({"count": "3"}, "count='3': expected a valid integer"),
        ({"count": 3.0}, "count=3.0: expected a valid integer"),
        ({"count": None}, "count=None: expected a valid integer"),
        ({"count": [3]}, "count=[3]: expected a valid integer"),
        ({"switch": 1}, "switch=1: expected a valid boolean"),
        ({"switch": "yes"}, "switch='yes': expected a valid boolean"),
        ({"inner": 3}, "inner=3: expected an object"),
        ({"inner": {"share": 1.0}}, "inner.share=1.0: expected less than 1"),
        ({"inner": {"share": math.nan}}, "inner.share=nan: expected a finite number"),
        ({"inner": {"share": math.inf}}, "inner.share=inf: expected a finite number"),
        ({"inner": {"share": True}}, "inner.share=True: expected a valid number"),
        ({"items": [{}, {"share": 0}]}, "items[1].share=0: expected greater than 0"),
        ({"items": {"share": 0.5}}, "items={'share': 0.5}: expected a valid array"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_expected(values, problem):
    assert problems_of(values) == [problem]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"cout": 3}, "cout: unknown field; did you mean count?"),
        ({"inner": {"shar": 3}}, "inner.shar: unknown field; did you mean inner.share?"),
        ({"share": 0.3}, "share: unknown field; did you mean inner.share?"),
        ({"items": [{}, {"shar": 3}]},
         "items[1].shar: unknown field; did you mean items[1].share?"),
        ({"zzz": {"deep": 1}}, "zzz: unknown field"),
    ],
)  # fmt: skip
def test_an_unknown_field_is_told_with_the_nearest_name(values, problem):
    assert problems_of(values) == [problem]


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", 1j])
def test_what_json_has_no_word_for_is_told_with_its_field(value):
    (problem,) = problems_of({"count": value})
    assert problem.startswith("count=") and type(value).__name__ in problem
    assert problem.endswith("expected a valid integer")


def test_all_that_is_wrong_is_told_at_once():
    wrong = {"cout": 1, "count": 0, "switch": 1, "inner": {"share": 7, "x": 1}, "items": [{"y": 0}]}
    told = problems_of(wrong)
    assert len(told) == 6
    for start in ("cout:", "count=0:", "switch=1:", "inner.share=7:", "inner.x:", "items[0].y:"):
        assert sum(each.startswith(start) for each in told) == 1, start


def test_options_are_listed_with_dotted_names_and_what_they_may_be():
    listed = {each.name: each for each in options_of(Outer)}
    assert list(listed) == ["count", "switch", "names", "inner.share", "items"]
    assert (listed["count"].default, listed["count"].meaning) == (3, "how many")
    assert listed["count"].expected == ">= 1"
    assert listed["inner.share"].expected == "> 0 and < 1"
    assert listed["switch"].expected == ""


def test_the_nearest_name_is_one_of_the_same_last_part_where_there_is():
    assert unknown("learning_rate", NAMES).endswith("did you mean optimizer.learning_rate?")
    assert unknown("optimiser.learning_rate", NAMES).endswith("mean optimizer.learning_rate?")
    assert unknown("bach_size", NAMES).endswith("did you mean batch_size?")
    assert unknown("qqqq", NAMES) == "qqqq: unknown field"


# --- Of a run, for any values

OTHERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(deadline=None)
@given(st.sampled_from(NAMES), OTHERS)
def test_any_value_is_taken_as_it_is_or_told_with_its_field(name, value):
    try:
        made = parse(RunConfig, nested(name, value)).to_dict()
    except ConfigError as error:
        group = name.rpartition(".")[0]
        assert all(each.startswith((name, f"{group}.")) for each in error.problems) or (
            "microbatches" in str(error)  # which may not divide the batch
        )
    else:
        taken, default = value_at(made, name), value_at(DEFAULTS, name)
        assert type(taken) is type(default)
        alone = [value] if isinstance(value, str) and isinstance(default, list) else value
        assert taken == alone or name == "stages"
        assert isinstance(value, bool) == isinstance(taken, bool)


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.text("abcdefgh_", min_size=1, max_size=4))
def test_a_name_with_something_behind_it_is_unknown_and_its_own_is_nearest(name, more):
    wrong = f"{name}{more}"
    if wrong in NAMES:
        return
    (problem,) = problems_of(nested(wrong, 1), RunConfig)
    assert problem.startswith(f"{wrong}: unknown field")
    if len(more) == 1:
        assert "; did you mean " in problem


@settings(deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
def test_as_many_problems_as_fields_are_wrong(names):
    values: dict = {}
    for name in names:
        *groups, last = name.split(".")
        place = values
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = {"no": "field is an object"}
    told = problems_of(json.loads(json.dumps(values)), RunConfig)
    assert sorted(each.partition("=")[0] for each in told) == sorted(names)


@settings(deadline=None)
@given(st.sampled_from(["from_step", "trainable", "top_layers"]), st.integers(0, 3))
def test_fields_of_stages_are_told_with_their_place(name, number):
    stages = [{"from_step": k} for k in range(number + 1)]
    stages[number] = {**stages[number], name: None}
    (problem,) = problems_of({"stages": stages}, RunConfig)
    assert problem.startswith(f"stages[{number}].{name}=None: expected")
    assert name in StageConfig.__pydantic_fields__
