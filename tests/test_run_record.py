"""What a run must have in common with the checkpoints that it goes on from."""

import contextlib
import functools

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

    def leave(values, **more):
        leave_record(tmp_path / CHECKPOINTS, 4, {"config": values, "params": "5f0c", **more})
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
    other = changed(CONFIG, seed=1, optimizer={"learning_rate": 1.0}, prompt="describe")
    assert differing(workdir, other) == [
        "  config.optimizer.learning_rate: was 5e-05, is 1.0",
        "  config.prompt: was 'caption en', is 'describe'",
        "  config.seed: was 0, is 1",
    ]
    names = ["optimizer", "seed"]  # a group, and a field
    (left,) = differing(workdir, changed(other, allow_changed=names))
    assert left.startswith("  config.prompt")
    check_record(workdir, changed(other, allow_changed=[*names, "prompt"]))


def test_what_cannot_change_what_is_learned_makes_no_other_run(saved):
    other = changed(
        CONFIG, workdir="elsewhere", keep=1, save_minutes=1.0, export="m.npz", sampler="beam",
        max_new_tokens=9, test_images=5, data={"test": "other"}, fsdp=1, early_stopping=3,
    )  # fmt: skip
    check_record(saved(CONFIG.to_dict()), other)


def test_the_order_of_sums_counts_where_a_step_may_overflow(saved):
    half = changed(CONFIG, model={"dtype": "float16"})
    workdir = saved(half.to_dict())
    assert differing(workdir, changed(half, microbatches=2)) == [
        "  config.microbatches: was 1, is 2"
    ]
    check_record(workdir, changed(half, microbatches=2, allow_changed=["microbatches"]))


def test_a_package_that_is_recorded_since_is_no_difference(saved):
    old = {"jax": record_of(CONFIG, "")["software"]["jax"]}
    check_record(saved(CONFIG.to_dict(), software=old), CONFIG)


def test_other_software_is_told_by_its_name(saved, monkeypatch):
    present = record_of(CONFIG, "5f0c")
    old = {**present["software"], "jax": "0.4.1", "pillow": "8.0"}
    workdir = saved(CONFIG.to_dict(), software=old)
    now = present["software"]
    assert differing(workdir, CONFIG) == [
        f"  software.jax: was '0.4.1', is '{now['jax']}'",
        f"  software.pillow: was '8.0', is '{now['pillow']}'",
    ]
    (left,) = differing(workdir, changed(CONFIG, allow_changed=["software.jax"]))
    assert left.startswith("  software.pillow")
    check_record(workdir, changed(CONFIG, allow_changed=["software"]))


def test_the_text_length_may_differ(saved):
    check_record(saved(CONFIG.to_dict()), changed(CONFIG, text_len=64))


def test_the_text_length_may_not_differ_where_text_is_cut(saved):
    cut = changed(CONFIG, truncate=True, text_len=128)
    assert differing(saved(cut.to_dict()), changed(cut, text_len=64)) == [
        "  config.text_len: was 128, is 64"
    ]


def test_an_option_that_is_newer_than_the_record_had_its_default(saved):
    values = CONFIG.to_dict()
    del values["lowercase"], values["data"]["horizontal_flip"], values["stages"][1]["top_layers"]
    values["stages"][0]["trainable"] = "attention"  # as older files have it
    values["epochs"] = 10
    workdir = saved(values)
    check_record(workdir, CONFIG)
    assert differing(workdir, changed(CONFIG, lowercase=True, data={"horizontal_flip": True})) == [
        "  config.data.horizontal_flip: was False, is True",
        "  config.lowercase: was False, is True",
    ]


def test_an_option_that_is_no_more_is_told_alone(saved):
    values = CONFIG.to_dict()
    values["optimizer"]["momentum"] = 0.9
    del values["max_skipped"], values["data"]["horizontal_flip"]
    assert differing(saved(values), CONFIG) == ["  config.optimizer.momentum: was 0.9, is None"]


def test_a_record_of_something_else_is_told_too(saved):
    present = record_of(RunConfig(), "5f0c")
    assert completed({"params": "5f0c"}, present) == present
    values = {**CONFIG.to_dict(), "data": 3}
    assert any("config.data.kind: was None" in line for line in differing(saved(values), CONFIG))


def test_parameters_count_once_they_are_known(saved):
    folder = saved(CONFIG.to_dict()) / CHECKPOINTS
    for params, told in (("5f0c", ""), ("aa", "params: was '5f0c', is 'aa'")):
        present = record_of(CONFIG, params)
        with pytest.raises(ValueError, match=told) if told else contextlib.nullcontext():
            known = functools.partial(completed, present=present)
            check_run(folder, present, allowed_changes(CONFIG), known)


def test_records_that_name_fields_as_before_are_understood():
    values = CONFIG.to_dict()
    values["may_differ"] = values.pop("allow_changed")
    values["data"]["mirror"] = values["data"].pop("horizontal_flip")
    present = record_of(CONFIG, "")
    assert completed({"config": values, "params": ""}, present) == present


def test_a_run_from_before_images_were_upright_is_told_apart(saved):
    values = CONFIG.to_dict()
    del values["data"]["apply_exif"]
    assert differing(saved(values), CONFIG) == ["  config.data.apply_exif: was False, is True"]


@pytest.mark.parametrize(("kind", "name"), [("tfds", "flickr8k_tfds"), ("sample", "40")])
def test_a_record_that_names_the_form_is_of_the_run_that_derives_it(saved, kind, name):
    before = changed(CONFIG, data={"kind": kind, "name": name}).to_dict()
    check_record(saved(before), changed(CONFIG, data={"name": name}))
