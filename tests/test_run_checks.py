"""The checks before a run: each passes, and fails for its own reason."""

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import captioning_cases as cases
import jax
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import flickr8k_tfds
import paligemma_lib as pg
from paligemma_lib import hub
from paligemma_lib.data.tables import from_folder, from_jsonl
from paligemma_lib.run import RunConfig, Setup, checks
from paligemma_lib.run.findings import ChecksFailed, examine, require
from paligemma_lib.run.options import parse
from paligemma_lib.train import memory

MODEL = ("checkpoint", "tokenizer", "vocab_size", "frozen_dtype")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint, a tokenizer and twelve pictures: what a setup is made of."""
    folder = tmp_path_factory.mktemp("tiny")
    _, checkpoint, _, tokenizer, *_ = cases.write_captioner(folder)
    names = [f"{number}.png" for number in range(12)]
    cases.write_pictures(folder / "Images", names)
    rows = [f"{name},a dog runs over {name}" for name in names]
    (folder / "captions.txt").write_text("image,caption\n" + "\n".join(rows) + "\n")
    data = {"train": from_folder(folder), "validation": from_folder(folder)}
    return {"checkpoint": checkpoint, "tokenizer": tokenizer}, data


@pytest.fixture
def setup(tiny, tmp_path):
    """Makes setups: fields of the config, those of the model, and sources."""
    model, data = tiny

    def make(given=data, records=None, **changes):
        of_model = {name: changes.pop(name) for name in list(changes) if name in MODEL}
        values = {"workdir": str(tmp_path / "run"), "text_len": 32} | changes
        config = parse(RunConfig, values | {"model": {**model, **of_model}})
        return Setup(config, given, records)

    return make


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A data set as flickr8k_tfds builds it."""
    folder = tmp_path_factory.mktemp("built")
    dummy = Path(flickr8k_tfds.__file__).parent / "dummy_data"
    builder = flickr8k_tfds.Builder(data_dir=folder)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=dummy))
    return folder


def test_all_is_well(setup, tmp_path):
    findings = list(examine(setup(), timeout=60))
    assert [each.name for each in findings] == list(checks.CHECKS)
    assert all(each.passed for each in findings), findings
    said = {each.name: each.text for each in findings}
    assert "jax" in said["machine"] and "1 x cpu" in said["machine"]
    assert said["data"] == "train 12, validation 12 pictures"
    assert said["texts"] == "those of 24 pictures fit 32 slots"
    assert said["checkpoint"].endswith("parameters in float32")
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
    require(setup())


def test_one_cause_is_told_once_and_the_other_checks_are_made(setup):
    damaged = setup(checkpoint="nowhere.npz")
    failed = {f.name: f.text for f in examine(damaged, 60) if not f.passed}
    assert failed.pop("checkpoint").startswith("nowhere.npz is not there")
    assert failed == dict.fromkeys(failed, "cannot be told: see checkpoint")
    assert set(failed) == {"trainable", "tokenizer", "memory", "workdir"}
    with pytest.raises(ChecksFailed, match="a check fails:\n  checkpoint: nowhere.npz is"):
        require(damaged)
    with pytest.raises(ChecksFailed, match="2 checks fail:\n  checkpoint: .*\n  data: "):
        require(setup({"train": ()}, checkpoint="nowhere.npz"))


def test_what_takes_too_long_has_failed(setup, monkeypatch):
    def stall(_):
        time.sleep(30)

    monkeypatch.setattr(
        "paligemma_lib.run.findings.CHECKS", {"kaggle": stall, "batch": checks.batch}
    )
    first, second = examine(setup(), timeout=0.1)
    assert not first.passed and "no answer within" in first.text
    assert second.passed


def test_an_accelerator_that_jax_does_not_use(setup, monkeypatch):
    assert checks.machine(setup())
    monkeypatch.setattr(checks.glob, "glob", lambda pattern: ["/dev/nvidia0"])
    platforms = jax.config.values["jax_platforms"]
    try:
        jax.config.update("jax_platforms", None)
        with pytest.raises(ValueError, match=r"/dev/nvidia0 is there.*pip install '.*\[cuda\]'"):
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
    with pytest.raises(ValueError, match="has taken /physical_device:GPU:0 already"):
        checks.tensorflow(setup())


def test_batches_that_cannot_be_divided(setup):
    assert checks.batch(setup(batch_size=6, microbatches=2)).startswith("6 pictures a step, 3 at")
    two = setup(batch_size=6, microbatches=2)
    two.__dict__["mesh"] = SimpleNamespace(size=2)
    with pytest.raises(ValueError, match="batch_size=6 cannot be divided among 2 devices and 2"):
        checks.batch(two)


def test_a_checkpoint_of_other_names_or_types(setup, tiny, tmp_path):
    with np.load(tiny[0]["checkpoint"]) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["params/llm/extra"] = arrays.pop("params/llm/final_norm/scale")
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match="llm/final_norm/scale"):
        checks.checkpoint(setup(checkpoint=str(tmp_path / "other.npz")))
    assert checks.checkpoint(setup(checkpoint="")) == "none: a new nano"


def test_nothing_to_train(setup):
    assert "parameters train" in checks.trainable(setup())
    with pytest.raises(ValueError, match="selects none of the parameters"):
        checks.trainable(setup(stages=[{}, {"from_step": 9, "trainable": "lora"}]))


def test_a_tokenizer_of_another_model(setup, monkeypatch, tmp_path):
    said = checks.tokenizer(setup())
    assert "pieces, sha256 " in said and "PaliGemma's" not in said
    monkeypatch.setattr(hub, "TOKENIZER_SHA256", re.compile(".*"))
    assert checks.tokenizer(setup()).endswith(", PaliGemma's")
    (tmp_path / "small.model").write_bytes(pg.tokenizer.train(pg.testing.tiny_captions(), 300))
    with pytest.raises(ValueError, match="do not belong together"):
        checks.tokenizer(setup(tokenizer=str(tmp_path / "small.model")))
    made = {"checkpoint": "", "tokenizer": "", "vocab_size": 300}
    assert "300 pieces, to be made" in checks.tokenizer(setup(**made))
    with pytest.raises(FileNotFoundError, match="is not a file"):
        checks.tokenizer(setup(**made | {"tokenizer": str(tmp_path / "t.model")}))


def test_data_that_is_not_there_or_empty(setup, tmp_path):
    with pytest.raises(FileNotFoundError, match="no.jsonl"):
        checks.data(setup({"train": from_jsonl(tmp_path / "no.jsonl")}))
    with pytest.raises(ValueError, match="train: there are no pictures in"):
        checks.data(setup({"train": ()}))
    drawn = setup(None, data={"kind": "sample", "name": "40"})
    assert checks.data(drawn) == "40 pictures, to be drawn"
    assert checks.texts(drawn) == "not there yet"


def copied(built, folder):
    """A copy of the data set; the setup of it, and the folder of its files."""
    (source,) = built.glob("flickr8k_tfds/original/*")
    place = folder / source.relative_to(built)
    place.mkdir(parents=True)
    for file in source.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    splits = dict.fromkeys(("train", "validation", "test"), "train")
    return {"given": None, "data": {"dir": str(folder), **splits}}, place


def test_a_data_set_is_compared_with_what_was_built(setup, built, tmp_path):
    changes, place = copied(built, tmp_path / "data")
    assert "left out when it was built" in checks.data(setup(**changes))
    info = json.loads((place / "dataset_info.json").read_text())
    info["splits"][0]["numBytes"] = str(int(info["splits"][0]["numBytes"]) + 1)
    (place / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="bytes, and had .* when it was built"):
        checks.data(setup(**changes))


def test_a_report_of_another_build(setup, built, tmp_path):
    changes, place = copied(built, tmp_path / "data")
    report = json.loads((place / "verification.json").read_text())
    report["splits"]["train"]["pictures"] += 1
    (place / "verification.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match="they are of two builds"):
        checks.data(setup(**changes))
    (place / "verification.json").write_text("{}")
    with pytest.raises(ValueError, match="is no verification report"):
        checks.data(setup(**changes))


def test_captions_that_do_not_fit(setup, tiny):
    with pytest.raises(ValueError, match=r"image 0.png .*text_len is 8"):
        checks.texts(setup(text_len=8))
    assert checks.texts(setup(text_len=8, truncate=True)).startswith("cut to 8 slots")
    assert checks.texts(setup(records=5)) == "those of 10 pictures fit 32 slots"
    source = tiny[1]["train"]
    seen = []

    class Watched:
        def __len__(self):
            return 1_000_001

        def read(self, numbers):
            seen.extend(numbers)
            return source.read([number % len(source) for number in numbers])

    checks.texts(setup({"train": Watched()}, records=5))
    assert seen == [0, 250_000, 500_000, 750_000, 1_000_000]


def test_too_little_memory(setup, monkeypatch):
    assert "GiB a device" in checks.memory(setup())
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
    with pytest.raises(OSError, match="GiB for checkpoints .* are free: make room"):
        checks.workdir(setup(workdir=str(run)))
    run.mkdir()
    with (run / "checkpoint").open("wb") as left:
        left.truncate(1 << 30)
    checks.workdir(setup(workdir=str(run)))  # what is there will be replaced


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
