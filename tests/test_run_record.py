"""What a run must have in common with the checkpoints that it goes on from."""

import pytest
from finetune_cases import leave_record
from run_cases import changed

from paligemma_lib.run import RunConfig, StageConfig
from paligemma_lib.run.record import allowed_changes, check_record, completed, record_of
from paligemma_lib.train.compatibility import CHECKPOINTS, check_run

CONFIG = RunConfig(stages=(StageConfig(), StageConfig(from_step=4, trainable=("all",))))


@pytest.fixture
def saved(tmp_path):
    """Leaves a checkpoint of a run with this config, without some of its fields."""

    def leave(values):
        leave_record(tmp_path / CHECKPOINTS, 4, {"config": values, "params": "5f0c"})
        return tmp_path

    return leave


def differing(workdir, config):
    with pytest.raises(ValueError, match="holds a run with another configuration") as caught:
        check_record(workdir, config)
    return str(caught.value).splitlines()[1:-1]


def test_an_empty_workdir_takes_any_run(tmp_path):
    check_record(tmp_path, CONFIG)


def test_the_same_run_goes_on_whatever_its_parameters_are(saved):
    check_record(saved(CONFIG.to_dict()), CONFIG)


def test_what_differs_is_told_and_may_be_allowed(saved):
    workdir = saved(CONFIG.to_dict())
    other = changed(CONFIG, seed=1, optimizer={"learning_rate": 1.0}, workdir="elsewhere")
    assert differing(workdir, other) == [
        "  config.optimizer.learning_rate: was 5e-05, is 1.0",
        "  config.seed: was 0, is 1",
        "  config.workdir: was 'workdir', is 'elsewhere'",
    ]
    names = ["optimizer.learning_rate", "seed"]
    (left,) = differing(workdir, changed(other, allow_changed=names))
    assert left.startswith("  config.workdir")
    check_record(workdir, changed(other, allow_changed=[*names, "workdir"]))
    always = ["allow_changed", "data.max_corrupt", "text_len"]
    assert allowed_changes(CONFIG) == [*always, *(f"config.{name}" for name in always)]


def test_the_text_length_may_differ(saved):
    check_record(saved(CONFIG.to_dict()), changed(CONFIG, text_len=64))


def test_the_text_length_may_not_differ_where_text_is_cut(saved):
    cut = changed(CONFIG, truncate=True, text_len=128)
    assert differing(saved(cut.to_dict()), changed(cut, text_len=64)) == [
        "  config.text_len: was 128, is 64"
    ]


def test_an_option_that_is_newer_than_the_record_had_its_default(saved):
    values = CONFIG.to_dict()
    del values["max_skipped"], values["data"]["horizontal_flip"], values["stages"][1]["top_layers"]
    values["stages"][0]["trainable"] = "attention"  # as older files have it
    values["epochs"] = 10
    workdir = saved(values)
    check_record(workdir, CONFIG)
    assert differing(workdir, changed(CONFIG, max_skipped=3, data={"horizontal_flip": True})) == [
        "  config.data.horizontal_flip: was False, is True",
        "  config.max_skipped: was 20, is 3",
    ]


def test_an_option_that_is_no_more_is_told_alone(saved):
    values = CONFIG.to_dict()
    values["optimizer"]["momentum"] = 0.9
    del values["max_skipped"], values["data"]["horizontal_flip"]
    assert differing(saved(values), CONFIG) == ["  config.optimizer.momentum: was 0.9, is None"]


def test_a_record_of_something_else_is_told_too(saved):
    assert completed({"params": "5f0c"}) == record_of(RunConfig(), "5f0c")
    values = {**CONFIG.to_dict(), "data": 3}
    assert any("config.data.kind: was None" in line for line in differing(saved(values), CONFIG))


def test_parameters_count_once_they_are_known(saved):
    folder = saved(CONFIG.to_dict()) / CHECKPOINTS
    check_run(folder, record_of(CONFIG, "5f0c"), (), completed)
    with pytest.raises(ValueError, match="params: was '5f0c', is 'aa'"):
        check_run(folder, record_of(CONFIG, "aa"), allowed_changes(CONFIG), completed)


def test_records_that_name_fields_as_before_are_understood():
    values = CONFIG.to_dict()
    values["may_differ"] = values.pop("allow_changed")
    values["data"]["mirror"] = values["data"].pop("horizontal_flip")
    assert completed({"config": values, "params": ""}) == record_of(CONFIG, "")


def test_a_run_from_before_images_were_upright_is_told_apart(saved):
    values = CONFIG.to_dict()
    del values["data"]["apply_exif"]
    assert differing(saved(values), CONFIG) == ["  config.data.apply_exif: was False, is True"]


@pytest.mark.parametrize(("kind", "name"), [("tfds", "flickr8k_tfds"), ("sample", "40")])
def test_a_record_that_names_the_form_is_of_the_run_that_derives_it(saved, kind, name):
    before = changed(CONFIG, data={"kind": kind, "name": name}).to_dict()
    check_record(saved(before), changed(CONFIG, data={"name": name}))
