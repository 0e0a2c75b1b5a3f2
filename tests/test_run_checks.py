"""The checks before a run: each passes, and fails for its own reason."""

import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tensorflow as tf
from finetune_cases import leave_record
from run_cases import changed, setup_of, write_run

import paligemma_lib as pg
from paligemma_lib import hub
from paligemma_lib.run import ChecksFailed, ConfigError, Setup, checks, findings, finetune, prepare
from paligemma_lib.train import memory
from paligemma_lib.train.compatibility import CHECKPOINTS


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def setup(tiny, tmp_path):
    return lambda **changes: setup_of(tiny, **{"workdir": str(tmp_path / "run")} | changes)


def test_an_accelerator_that_jax_does_not_use(setup, monkeypatch):
    assert checks.machine(setup())
    monkeypatch.setattr(checks.glob, "glob", lambda pattern: ["/dev/nvidia0"])
    platforms = jax.config.values["jax_platforms"]
    try:
        jax.config.update("jax_platforms", None)
        with pytest.raises(ValueError, match=r"/dev/nvidia0 exists.*pip install '.*\[cuda\]'"):
            checks.machine(setup())
        jax.config.update("jax_platforms", "cpu")
        assert checks.machine(setup())
    finally:
        jax.config.update("jax_platforms", platforms)


def test_tensorflow_that_has_taken_the_gpu(setup, monkeypatch):
    assert checks.tensorflow(setup()) == "sees no accelerator"

    def too_late(devices, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    gpu = SimpleNamespace(name="/physical_device:GPU:0")
    monkeypatch.setattr(tf.config, "set_visible_devices", too_late)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [gpu])
    with pytest.raises(ValueError, match="already uses /physical_device:GPU:0"):
        checks.tensorflow(setup())


def test_batches_that_cannot_be_divided(setup, monkeypatch):
    said = checks.batch(setup(batch_size=6, microbatches=2))
    assert said == "6 images a step, 3 at a time on each device"
    monkeypatch.setattr(Setup, "mesh", SimpleNamespace(size=2))
    message = "batch_size=6 cannot be divided among 2 devices and 2 microbatches: .* multiple of 4"
    with pytest.raises(ValueError, match=message):
        checks.batch(setup(batch_size=6, microbatches=2))
    with pytest.raises(ConfigError, match="batch_size=5: expected a multiple of microbatches"):
        setup(batch_size=5, microbatches=2)  # on any number of devices


def test_a_checkpoint_of_other_names_or_types(setup, tiny, tmp_path):
    with np.load(tiny.model.checkpoint) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["params/llm/extra"] = arrays.pop("params/llm/final_norm/scale")
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match="llm/final_norm/scale"):
        checks.checkpoint(setup(model={"checkpoint": str(tmp_path / "other.npz")}))
    with pytest.raises(ConfigError, match="model.frozen_dtype='int4': expected '', 'float32'"):
        setup(model={"frozen_dtype": "int4"})
    assert checks.checkpoint(setup()).endswith("parameters in float32")
    assert checks.checkpoint(setup(model={"checkpoint": ""})) == "none: a new nano"


def test_nothing_to_train(setup):
    assert "parameters train" in checks.trainable(setup())
    for names, message in (("lora", "matches no parameter"), ((), "nothing is selected")):
        stages = [{}, {"from_step": 9, "trainable": names}]
        with pytest.raises(ValueError, match=message):
            checks.trainable(setup(stages=stages))


def test_each_stage_is_told(setup):
    stages = [{"top_layers": 1}, {"from_step": 5, "trainable": ["attention", "projector"]}]
    said = checks.trainable(setup(stages=stages))
    params = pg.model.abstract_params(setup().model)
    layers = params["llm"]["layers"]["attn"]
    attention = sum(leaf.size for leaf in jax.tree.leaves(layers))
    first = attention // setup().model.language.depth
    second = attention + sum(leaf.size for leaf in jax.tree.leaves(params["img"]["head"]))
    assert said.startswith(f"{first:,}, then {second:,} of ") and first < second


def test_a_tokenizer_of_another_model(setup, monkeypatch, tmp_path):
    said = checks.tokenizer(setup())
    assert "pieces, sha256 " in said and "PaliGemma's" not in said
    monkeypatch.setattr(hub, "TOKENIZER_SHA256", re.compile(".*"))
    assert checks.tokenizer(setup()).endswith(", PaliGemma's")
    (tmp_path / "small.model").write_bytes(pg.tokenizer.train(pg.testing.tiny_captions(), 300))
    with pytest.raises(ValueError, match="do not belong together"):
        checks.tokenizer(setup(model={"tokenizer": str(tmp_path / "small.model")}))
    made = {"checkpoint": "", "tokenizer": "", "vocab_size": 300}
    assert "300 pieces, to be trained" in checks.tokenizer(setup(model=made))
    missing = {"checkpoint": "", "tokenizer": str(tmp_path / "t.model")}
    with pytest.raises(FileNotFoundError, match="is not a file"):
        checks.tokenizer(setup(model=missing))


def test_too_little_memory(setup, monkeypatch):
    assert "GiB per device" in checks.memory(setup())
    little = SimpleNamespace(available=1 << 10)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: little)
    with pytest.raises(ValueError, match="GiB are free. What helps"):
        checks.memory(setup())


def test_a_workdir_without_room_or_rights(setup, tmp_path, monkeypatch):
    assert "GiB" in checks.workdir(setup(workdir=str(tmp_path / "a" / "b")))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match="file/run cannot be written to .NotADirectoryError"):
        checks.workdir(setup(workdir=str(file / "run")))
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr("paligemma_lib.runtime.disk_space.shutil.disk_usage", lambda path: usage)
    run = tmp_path / "run"
    with pytest.raises(OSError, match="GiB for checkpoints .* are free. Free disk space"):
        checks.workdir(setup())
    run.mkdir()
    with (run / "checkpoint").open("wb") as left:
        left.truncate(1 << 30)
    checks.workdir(setup())  # what is there will be replaced


def test_the_room_for_checkpoints_grows_with_what_trains_and_is_kept(setup, monkeypatch):
    asked = []
    monkeypatch.setattr(checks, "check_space", lambda folder, needed: asked.append(needed))
    for changes in ({"keep": 1}, {"keep": 2}, {"keep": 1, "optimizer": {"name": "sgd"}}):
        checks.workdir(setup(**changes, stages=[{"trainable": "all"}], export_dtype="float16"))
    one, two, without_moments = asked
    shapes = pg.model.abstract_params(setup().model)
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert two - one == pytest.approx(3 * 4 * total, rel=1e-3)  # weights and two moments
    assert one == pytest.approx(3 * 3 * 4 * total + 2 * total, rel=1e-3)
    assert without_moments == pytest.approx(3 * 4 * total + 2 * total, rel=1e-3)


# --- The run that begins with them


def test_each_check_stops_the_run_before_it_makes_anything(tiny, tmp_path, monkeypatch):
    config = changed(tiny, workdir=str(tmp_path / "run"))
    for name in checks.CHECKS:

        def fail(setup, name=name):
            raise ValueError(f"{name} is wrong")

        made = {**dict.fromkeys(checks.CHECKS, lambda setup: "fine"), name: fail}
        with monkeypatch.context() as patch:
            patch.setattr(findings, "CHECKS", made)
            with pytest.raises(ChecksFailed, match=f"a check fails:\n  {name}: {name} is wrong$"):
                finetune(config)
        assert list(tmp_path.iterdir()) == []


def test_a_workdir_of_another_run_is_told_before_parameters_are_loaded(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "load_params", lambda *_: pytest.fail("parameters were loaded"))
    before = changed(tiny, workdir=str(tmp_path))
    leave_record(tmp_path / CHECKPOINTS, 4, {"config": before.to_dict(), "params": "5f0c"})
    assert "GiB" in checks.workdir(Setup(before))
    other = changed(before, seed=1)
    message = r"holds a run with another configuration, at step 4:\n  config.seed: was 0, is 1\n"
    with pytest.raises(ValueError, match=message):
        checks.workdir(Setup(other))
    with pytest.raises(ChecksFailed, match=message):
        finetune(other)
    assert "GiB" in checks.workdir(Setup(changed(other, allow_changed="seed")))
