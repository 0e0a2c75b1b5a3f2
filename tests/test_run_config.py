"""The config of a run: its fields, their bounds, and that plain values and back is the same run."""

import dataclasses
import itertools
import json
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from paligemma_lib import quantized
from paligemma_lib.checkpoint.configuration import MODELS
from paligemma_lib.model import variants
from paligemma_lib.run import ConfigError, RunConfig, StageConfig
from paligemma_lib.run.config import SPLITS
from paligemma_lib.run.data_config import DataConfig, PartConfig
from paligemma_lib.run.dotted import NameOrDotted
from paligemma_lib.run.options import options_of, parse
from paligemma_lib.run.training_config import (
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    RewardConfig,
)
from paligemma_lib.train import optimizer

KINDS = (RunConfig, DataConfig, ModelConfig, StageConfig, LoraConfig, OptimizerConfig, RewardConfig)


def bounds_of(field: FieldInfo) -> dict[str, Any]:
    return {
        name: getattr(each, name)
        for each in field.metadata
        for name in ("gt", "ge", "lt", "le", "min_length")
        if hasattr(each, name)
    }


def fields_of(kind, prefix=""):
    """Dotted name -> field, of all groups and of a stage."""
    for name, field in kind.__pydantic_fields__.items():
        inner = field.annotation
        if name == "stages":
            yield from fields_of(StageConfig, "stages[0].")
        elif hasattr(inner, "__pydantic_fields__"):
            yield from fields_of(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


FIELDS = dict(fields_of(RunConfig))


def with_value(name: str, value: Any) -> dict[str, Any]:
    """Plain values of a run with one field, whose name may lead into the first stage."""
    values = RunConfig().to_dict()
    place: Any = values
    *groups, last = name.replace("[0]", ".0").split(".")
    for group in groups:
        place = place[int(group) if group.isdecimal() else group]
    place[last] = value
    return values


# --- Any valid run


def values_for(name: str, field: FieldInfo) -> st.SearchStrategy:
    bounds = bounds_of(field)
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if get_origin(field.annotation) is Literal:
        return st.sampled_from(get_args(field.annotation))
    for each in field.metadata:
        if isinstance(each, NameOrDotted):
            return st.sampled_from([*each.names, "mine.parts:Part"])
    if name == "trackers":
        return st.lists(st.sampled_from(["tensorboard", "mine.parts:Part"])).map(tuple)
    if field.annotation is bool:
        return st.booleans()
    if field.annotation is int:
        return st.integers(low, (high or 10**9) - ("lt" in bounds))
    if field.annotation is float:
        excluded = {"exclude_min": "gt" in bounds, "exclude_max": "lt" in bounds}
        return st.floats(low, 1e300 if high is None else high, allow_nan=False, **excluded)
    if field.annotation is str:
        return st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    return st.lists(st.text("abc/[]()|*", min_size=1), max_size=3).map(tuple)


@st.composite
def runs(draw):
    def drawn(kind):
        return {
            name: draw(values_for(name, field))
            for name, field in kind.__pydantic_fields__.items()
            if name not in ("stages", "data", "model", "lora", "optimizer", "mixture", "reward")
        }

    values = drawn(RunConfig)
    steps = [0, *sorted(draw(st.sets(st.integers(1, 10**6), max_size=3)))]
    values["stages"] = tuple(StageConfig(**{**drawn(StageConfig), "from_step": k}) for k in steps)
    values["microbatches"] = draw(st.integers(1, 16))
    values["batch_size"] = values["microbatches"] * draw(st.integers(1, 1000))
    data = drawn(DataConfig)
    values["masks"] = "vae.npz" if values["task"] == "segment" else ""
    if values["task"] in ("detect", "segment"):
        data |= {"horizontal_flip": False, "min_crop_area": 1.0}
    data["mixture"] = tuple(PartConfig(**drawn(PartConfig)) for _ in range(draw(st.integers(0, 2))))
    if data["mixture"]:
        data |= {"kind": "auto", "train": "train"}
    # What is cut needs a length.
    if not values["validate_every"]:
        values["early_stopping"], values["export_best"] = 0, False
    values["text_len"] = max(values["text_len"], int(values["truncate"]))
    if data["kind"] == "sample" or data["name"].isdecimal():
        data["name"] = str(draw(st.integers(1, 10**6)))
    reward = RewardConfig()
    if draw(st.booleans()):  # trained on captions of its own, which some options say nothing of
        values |= {"captions": "packed", "truncate": False, "label_smoothing": 0.0, "z_loss": 0.0}
        reward = RewardConfig(**{**drawn(RewardConfig), "name": "cider"})
        values["stages"] = values["stages"][: 1 if reward.kl else None]
    return RunConfig(
        **values,
        reward=reward,
        data=DataConfig(**data),
        model=ModelConfig(**drawn(ModelConfig)),
        lora=LoraConfig(**drawn(LoraConfig)),
        optimizer=OptimizerConfig(**drawn(OptimizerConfig)),
    )


@settings(max_examples=60, deadline=None)
@given(runs())
def test_plain_values_and_back_is_the_same_run(config):
    plain = config.to_dict()
    assert parse(RunConfig, plain) == config
    text = json.dumps(plain, allow_nan=False)
    assert parse(RunConfig, json.loads(text)) == config
    assert json.loads(text) == plain  # lists, not tuples
    assert hash(parse(RunConfig, plain)) == hash(config)  # jobs of planning are keys
    assert dataclasses.replace(config) == config


@pytest.mark.parametrize("moved", [{"horizontal_flip": True}, {"min_crop_area": 0.5}])
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task": "detect"}, "boxes in the texts"),
        ({"task": "segment", "masks": "vae.npz"}, "boxes in the texts"),
        ({"reward": {"name": "truth"}}, "as drawn"),
    ],
)
def test_what_says_where_things_are_is_not_moved(moved, changes, why):
    with pytest.raises(ConfigError, match=f"data.{next(iter(moved))}: .*{why}"):
        parse(RunConfig, changes | {"data": moved})


@pytest.mark.parametrize("given", [{"task": "segment"}, {"masks": "vae.npz"}])
def test_masks_are_scored_with_what_reads_them_or_not_at_all(given):
    with pytest.raises(ConfigError, match="expected masks with task=segment alone"):
        parse(RunConfig, given)


@pytest.mark.parametrize("name", ["early_stopping", "export_best"])
def test_what_needs_a_validation_is_refused_without(name):
    with pytest.raises(ConfigError, match=f"{name} has no effect: validate_every=0"):
        parse(RunConfig, {name: 1 if name == "early_stopping" else True, "validate_every": 0.0})


def test_the_home_folder_is_expanded_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = parse(
        RunConfig,
        {
            **{"workdir": "~/runs", "export": "~/m.npz", "model": {"checkpoint": "~/a.npz"}},
            "data": {"train": "~/d.csv", "images": "~/i", "test": "test"},
        },
    )
    assert (found.workdir, found.export) == ("/home/me/runs", "/home/me/m.npz")
    assert (found.model.checkpoint, found.data.images) == ("/home/me/a.npz", "/home/me/i")
    assert (found.data.train, found.data.test) == ("/home/me/d.csv", "test")


# --- Each field


def test_every_field_has_a_meaning_and_a_default():
    for kind in KINDS:
        assert kind() == parse(kind, {})
        for name, field in kind.__pydantic_fields__.items():
            if not hasattr(field.annotation, "__pydantic_fields__"):
                assert field.description, f"{kind.__name__}.{name}"
                assert field.description == field.description.strip()
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(kind(), name, field.default)


def test_choices_are_those_of_the_library():
    def choices(name):
        return get_args(FIELDS[name].annotation)

    assert choices("optimizer.name") == optimizer.OPTIMIZERS
    assert choices("optimizer.schedule") == optimizer.SCHEDULES
    assert choices("model.dtype") == choices("export_dtype") == variants.DTYPES
    assert choices("model.frozen_dtype") == ("", *variants.DTYPES, *quantized.KINDS)
    assert choices("model.remat") == variants.REMAT
    assert set(choices("model.name")) == set(MODELS)
    assert all(split in DataConfig.__pydantic_fields__ for split in SPLITS)
    assert [each.name for each in options_of(RunConfig)][:2] == ["workdir", "seed"]


BOUNDS = [
    (name, key, bound)
    for name, field in FIELDS.items()
    for key, bound in bounds_of(field).items()
    if key != "min_length"
]


@pytest.mark.parametrize(("name", "key", "bound"), BOUNDS)
def test_a_bound_holds_to_either_side(name, key, bound):
    if FIELDS[name].annotation is float:
        bound, small = float(bound), 1e-6
    else:
        small = 1
    low, at, high = bound - small, bound, bound + small
    good = {"gt": [high], "ge": [at, high], "lt": [low], "le": [low, at]}[key]
    bad = {"gt": [low, at], "ge": [low], "lt": [at, high], "le": [high]}[key]
    for value in good if name != "stages[0].from_step" else [0]:  # the first begins there
        parse(RunConfig, with_value(name, value))
    for value in bad:
        with pytest.raises(ConfigError) as caught:
            parse(RunConfig, with_value(name, value))
        assert caught.value.problems[0].startswith(f"{name}={value!r}: expected ")


def test_numbers_without_bounds_are_none():
    unbounded = {n for n, f in FIELDS.items() if f.annotation in (int, float) and not bounds_of(f)}
    assert unbounded == set()


WRONG = {
    int: [True, "1", 1.5, 2.0, None, [1], {}, float("nan"), float("inf")],
    float: [True, "1", None, [1.0], {}, float("nan"), float("inf"), float("-inf")],
    bool: [0, 1, "true", None, 1.0, []],
    str: [0, True, None, 1.5, ["a"], {}],
    tuple: [0, True, None, [1], {"a": 1}, [None]],
    Literal: ["no such", "", 0, True, None, []],
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_of_another_type_is_told(name):
    kind = get_origin(FIELDS[name].annotation) or FIELDS[name].annotation
    for value in WRONG[kind]:
        if value == "" and value in get_args(FIELDS[name].annotation):
            continue
        with pytest.raises(ConfigError) as caught:
            parse(RunConfig, with_value(name, value))
        (problem,) = caught.value.problems
        assert problem.startswith(name) and ": expected " in problem, problem


def test_a_workdir_has_a_name():
    with pytest.raises(ConfigError, match="workdir='': expected at least 1 character"):
        parse(RunConfig, {"workdir": ""})


# --- Fields together


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"stages": []}, "stages begin at steps []: expected 0, then increasing steps"),
        ({"stages": [{"from_step": 5}]},
         "stages begin at steps [5]: expected 0, then increasing steps"),
        ({"stages": [{}, {"from_step": 7}, {"from_step": 7}]},
         "stages begin at steps [0, 7, 7]: expected 0, then increasing steps"),
        ({"batch_size": 10, "microbatches": 4},
         "batch_size=10: expected a multiple of microbatches, which is 4"),
        ({"data": {"kind": "sample", "name": "mine"}},
         "data.name='mine': expected a positive number of images, as kind is sample"),
        ({"data": {"kind": "sample", "name": "0"}},
         "data.name='0': expected a positive number of images, as kind is sample"),
        ({"data": {"kind": "sample", "name": "²"}},
         "data.name='²': expected a positive number of images, as kind is sample"),
    ],
)  # fmt: skip
def test_fields_that_do_not_go_together(values, problem):
    with pytest.raises(ConfigError) as caught:
        parse(RunConfig, values)
    assert list(caught.value.problems) == [problem]


def test_how_many_scenes_are_drawn():
    assert DataConfig(kind="sample", name="40").drawn == DataConfig(name="40").drawn == 40
    assert DataConfig(kind="tfds", name="40").drawn == 0


def test_a_config_of_python_checks_itself_too():
    for kind, values in itertools.product(KINDS, [{"bach_size": 1}]):
        with pytest.raises(ValueError, match="bach_size"):
            kind(**values)
    with pytest.raises(ValueError, match="batch_size"):
        dataclasses.replace(RunConfig(), batch_size=0)


def test_the_form_of_the_data_follows_from_path_and_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "train").mkdir()  # a folder that only happens to have the name of the split
    for train, name, form, drawn in (
        ("train", "40", "sample", 40),
        ("train[:20]", "40", "sample", 40),
        ("mine", "40", "auto", 0),
        ("gs://bucket/mine", "40", "auto", 0),
        ("train", "flickr8k_tfds", "tfds", 0),
        ("train", "0", "tfds", 0),
    ):
        config = DataConfig(train=train, name=name)
        assert (config.form, config.drawn) == (form, drawn)
