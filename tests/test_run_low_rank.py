"""Runs that train an adapter: the recipes on a tiny model, and what they leave, which agrees."""

import json
import shutil

import captioning_cases
import finetune_cases
import numpy as np
import pytest

import paligemma_lib as pg
from paligemma_lib.checkpoint import adapters
from paligemma_lib.cli.main import main
from paligemma_lib.run import finetune, load
from paligemma_lib.run.adapter_export import base_name

SCENES = ("--config.model.checkpoint=nano", "--config.data.kind=sample", "--config.data.name=24")
SMALL = ("--config.epochs=1", "--config.max_new_tokens=8", "--config.evaluate_before=False")


def run(folder, recipe, *options):
    """Fine-tunes in a few steps, and returns the workdir."""
    options = [f"--config.workdir={folder}", *SCENES, *SMALL, "--config.batch_size=8", *options]
    config = load(recipe, options)
    assert finetune(config) == 0
    return folder


@pytest.fixture(scope="module", autouse=True)
def tiny_nano(tmp_path_factory):
    """A tinier model takes the place of nano, on which slow tests run the recipes."""
    with pytest.MonkeyPatch.context() as patch:
        nano = captioning_cases.write_nano(tmp_path_factory.mktemp("nano"))
        patch.setattr(pg.hub.fetching, "NANO", nano)
        yield


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    scenes = tmp_path_factory.mktemp("lora") / "run"
    exact = ("--config.model.frozen_dtype=float32", "--config.model.dtype=float32")
    return run(scenes, "lora", "--config.export=whole.npz", "--config.export_dtype=float32", *exact)


def test_the_workdir_holds_the_adapter(lora):
    settings = json.loads((lora / "adapter" / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["r"]) == ("nano", 16)
    assert adapters.is_adapter(lora / "adapter")
    metadata = adapters.adapter_metadata(lora / "adapter")
    assert metadata["base_storage"] == "float32"
    config = pg.checkpoint.read_config("nano")
    found = adapters.read_adapter(lora / "adapter", config)
    assert len(found) == 7 * 3
    # It has learned something.
    assert any(array.any() for name, array in found.items() if name.endswith("/b"))


def test_a_base_is_named_so_that_it_is_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()  # nano is the library's, whatever lies here
    (tmp_path / "base.npz").touch()
    names = {"nano": "nano", "base.npz": str(tmp_path / "base.npz"), "gs://b/x.npz": "gs://b/x.npz"}
    for given, found in names.items():
        assert base_name(load("lora", [f"--config.model.checkpoint={given}"])) == found


def test_captions_are_those_of_the_merged_file(lora, tmp_path, capsys):
    images = sorted((lora / "scenes-24").rglob("*.jpg"))[:4]
    merged = tmp_path / "merged.npz"
    command = ["merge", "nano", str(lora / "adapter"), "--out", str(merged)]
    assert main([*command, "--dtype", "float32"]) == 0
    assert "KL divergence" in capsys.readouterr().out
    captions = []
    for checkpoint in (lora / "adapter", merged):
        captioner = pg.load(checkpoint)
        captions.append([each.text for each in captioner.caption(images, max_new_tokens=12)])
    assert captions[0] == captions[1] and all(captions[0])
    # What the run exports itself is the same model.
    with np.load(merged) as mine, np.load(lora / "whole.npz") as exported:
        assert sorted(mine) == sorted(exported)
        for name in mine:
            np.testing.assert_allclose(exported[name], mine[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_recipe_in_four_bits_runs(tmp_path):
    workdir = run(tmp_path / "run", "qlora")
    metadata = adapters.adapter_metadata(workdir / "adapter")
    size = captioning_cases.CONFIG.vision.image_size
    assert metadata == {"base_storage": "nf4", "image_size": f"{size}"}
    assert sorted(path.name for path in workdir.glob("*.npz")) == []
    assert json.loads((workdir / "scores.json").read_text())


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A tiny run: an adapter in two of three layers, from step 5 on in all, with the projector."""
    config = finetune_cases.tiny_run(tmp_path_factory.mktemp("staged"))
    stages = (
        {"from_step": 0, "trainable": ("lora",), "top_layers": 2},
        {"from_step": 5, "trainable": ("lora", "projector"), "top_layers": 0},
    )
    changes = {"lora.rank": 4, "evaluate_before": False, "keep": 20}
    return finetune_cases.of(config, "unused", stages=stages, **changes)


def test_layers_that_do_not_train_are_not_in_the_adapter(staged, tmp_path):
    config = finetune_cases.of(staged, tmp_path, stages=staged.stages[:1], epochs=1.0)
    assert finetune_cases.finetune(config) == 0
    found = adapters.read_adapter(tmp_path / "adapter", captioning_cases.CONFIG)
    scale = found["llm/layers/lora/q_proj/scale"]
    assert (scale != 0).tolist() == [False, True, True]


@pytest.mark.slow
def test_stages_and_resuming(staged, tmp_path):
    """A run stopped after its first stage goes on as if it had not been."""
    once, twice = (
        finetune_cases.of(staged, tmp_path / name, export="whole.npz") for name in ("once", "twice")
    )
    assert finetune_cases.finetune(once) == 0
    shutil.copytree(tmp_path / "once", tmp_path / "twice")
    (tmp_path / "twice" / "whole.npz").unlink()
    for step in (tmp_path / "twice" / "checkpoints").iterdir():
        if int(step.name) > 5:
            shutil.rmtree(step)
    assert any((tmp_path / "twice" / "checkpoints").iterdir())
    twice.allow_changed = ("workdir",)
    assert finetune_cases.finetune(twice) == 0
    models = [(tmp_path / name / "whole.npz").read_bytes() for name in ("once", "twice")]
    assert models[0] == models[1]
