"""The config of a run: what contradicts itself, and back and forth through JSON."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.run.config import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    StageConfig,
)
from paligemma_lib.run.options import ConfigError, parse

POSITIVE = st.floats(1e-9, 1e9)
CONFIGS = st.builds(
    RunConfig,
    seed=st.integers(0, 2**31),
    prompt=st.text(),
    epochs=POSITIVE,
    batch_size=st.integers(1, 99).map(lambda k: 4 * k),
    microbatches=st.sampled_from([1, 2, 4]),
    may_differ=st.lists(st.text()).map(tuple),
    data=st.builds(DataConfig, train=st.text(), min_crop_area=st.floats(0.01, 1)),
    model=st.builds(ModelConfig, dtype=st.sampled_from(["float32", "bfloat16"])),
    optimizer=st.builds(OptimizerConfig, learning_rate=POSITIVE, warmup=st.floats(0, 1)),
    stages=st.lists(st.lists(st.text(), min_size=1), min_size=1, max_size=4).map(
        lambda parts: tuple(
            StageConfig(from_step=3 * k, trainable=tuple(part)) for k, part in enumerate(parts)
        )
    ),
)


@given(CONFIGS)
def test_a_config_goes_through_json(config):
    assert parse(RunConfig, json.loads(json.dumps(config.to_dict()))) == config
    assert hash(config) == hash(parse(RunConfig, config.to_dict()))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"stages": []}, "stages begin at steps []: expected 0 and then rising ones"),
        ({"stages": [{"from_step": 3}]}, "stages begin at steps [3]: expected 0 and then"),
        ({"stages": [{}, {}]}, "stages begin at steps [0, 0]"),
        ({"batch_size": 5, "microbatches": 2}, "batch_size=5: expected a multiple of microbatches"),
        ({"data": {"kind": "sample"}}, "data.name='flickr8k_tfds': expected how many images"),
        ({"data": {"kind": "sample", "name": "0"}}, "data.name='0': expected how many images"),
    ],
)
def test_fields_that_contradict_each_other(values, problem):
    with pytest.raises(ConfigError) as caught:
        parse(RunConfig, values)
    (told,) = caught.value.problems
    assert told.startswith(problem), told


def test_one_text_may_stand_for_several():
    config = parse(RunConfig, {"may_differ": "seed", "stages": [{"trainable": "llm"}]})
    assert config.may_differ == ("seed",)
    assert config.stages[0].trainable == ("llm",)


def test_python_is_told_too():
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        RunConfig(batch_size=0)
    with pytest.raises(ValueError, match="less than 1"):
        dataclasses.replace(RunConfig(), label_smoothing=1.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().batch_size = 8
