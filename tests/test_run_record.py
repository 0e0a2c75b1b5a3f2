"""What a run must have in common with the one before."""

import dataclasses

import pytest
from finetune_cases import leave_record

from paligemma_lib.run.config import OptimizerConfig, RunConfig
from paligemma_lib.run.record import check_record, record_of
from paligemma_lib.train.identity import CHECKPOINTS

CONFIG = RunConfig(seed=1, workdir="runs")


def left(folder, config=CONFIG, without=()):
    record = record_of(config, "5f0c")
    for name in without:
        del record["config"][name]
    leave_record(folder / CHECKPOINTS, 4, record)


def test_the_same_run_goes_on(tmp_path):
    check_record(tmp_path, CONFIG)  # nothing is there yet
    left(tmp_path)
    check_record(tmp_path, CONFIG)


def test_what_differs_is_named_and_may_be_allowed(tmp_path):
    left(tmp_path)
    other = dataclasses.replace(CONFIG, seed=2, optimizer=OptimizerConfig(learning_rate=1e-3))
    message = r"config.optimizer.learning_rate: was 5e-05, is 0.001\n  config.seed: was 1, is 2"
    with pytest.raises(ValueError, match=message):
        check_record(tmp_path, other)
    allowed = dataclasses.replace(other, may_differ=("seed", "optimizer.learning_rate"))
    check_record(tmp_path, allowed)


def test_an_option_that_is_newer_than_the_checkpoint_had_its_default(tmp_path):
    left(tmp_path, without=["label_smoothing", "max_skipped"])
    check_record(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="config.label_smoothing: was 0.0, is 0.1"):
        check_record(tmp_path, dataclasses.replace(CONFIG, label_smoothing=0.1))
