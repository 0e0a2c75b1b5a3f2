"""What a config names, opened when asked for: sources, tokenizer, model, and what is to come."""

import dataclasses
import json

import jax
import pytest
from data_cases import photo
from run_cases import setup_of, sources_of, write_run

import paligemma_lib as pg
from paligemma_lib.data.replacing import Replacing
from paligemma_lib.hub import kaggle_access
from paligemma_lib.run import DataConfig, ModelConfig, RunConfig, Setup, open_data
from paligemma_lib.run.config import SPLITS

DRAWN = DataConfig(kind="sample", name="20")
HANDLE = "google/paligemma/jax/paligemma-3b-pt-224"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def setup(tiny, tmp_path):
    return lambda **changes: setup_of(tiny, **{"workdir": str(tmp_path / "run")} | changes)


def test_nothing_is_opened_before_it_is_asked_for_and_then_once(setup):
    wrong = setup(model={"checkpoint": "nowhere.npz"}, data={"train": "nowhere"})
    assert not wrong.pending
    with pytest.raises(FileNotFoundError, match="nowhere.npz does not exist"):
        _ = wrong.model
    right = setup()
    assert right.model is right.model and right.data is right.data
    assert right.tokenizer is right.tokenizer and right.mesh is right.mesh


def test_nano_knows_too_little_of_images_that_are_not_drawn(setup):
    assert setup(model={"checkpoint": "nano"}).knows_too_little
    assert not setup().knows_too_little  # the checkpoint of another model
    assert not Setup(RunConfig(model=ModelConfig(checkpoint="nano"), data=DRAWN)).knows_too_little
    given = Setup(RunConfig(model=ModelConfig(checkpoint="nano"), data=DRAWN), {"train": None})
    assert given.knows_too_little


# --- Sources


def test_a_folder_and_json_lines(setup, tiny, tmp_path):
    assert {split: len(source) for split, source in setup().data.items()} == dict.fromkeys(
        SPLITS, 12
    )
    (tmp_path / "x.png").write_bytes(photo(0))
    for number, split in enumerate(SPLITS):
        rows = [{"image": "x.png", "prefix": f"{k}", "suffix": "a dog"} for k in range(number + 1)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    named = {split: str(tmp_path / f"{split}.jsonl") for split in SPLITS}
    found = setup(data={"kind": "jsonl", **named})
    assert [len(found.data[split]) for split in SPLITS] == [1, 2, 3]
    assert found.data["test"].read([2])[0].captions == ("a dog",)
    assert (found.data_set, found.data_dir, found.data_pending) == ("", "", False)


def test_a_path_alone_says_all_of_the_data(setup, tiny, tmp_path):
    """The form by its content; validation and test by the data's own splits, or by a hash."""
    whole = setup().config.data.train
    data = {"kind": "auto", "train": whole, "validation": "validation", "test": "test"}
    found = setup(data=data).data
    assert sum(len(source) for source in found.values()) == 12
    assert setup(data=data).data_set == ""
    parts = {split: len(source) for split, source in found.items()}
    apart = setup(data={**data, "validation": whole, "test": f"{whole}#test"}).data
    assert {split: len(source) for split, source in apart.items()} == {
        "train": 12, "validation": 12, "test": parts["test"],
    }  # fmt: skip
    assert setup(data={"kind": "auto", "train": "train[:9]"}).data_set == "flickr8k_tfds"


def test_data_sets_of_tfds_and_drawn_scenes(setup, tmp_path, monkeypatch):
    def opened(name, split, data_dir, **features):
        assert not any(features.values())
        return name, split, data_dir

    monkeypatch.setattr(open_data, "from_tfds", opened)
    data = {"kind": "tfds", "name": "mine", "train": "train[:9]", "dir": ""}
    data |= {"validation": "validation", "test": "test"}
    found = setup(data=data)
    assert found.data["train"] == ("mine", "train[:9]", None)
    assert (found.data_set, found.data_dir) == ("mine", "")
    found = setup(data=data | {"dir": "there"})
    assert found.data["test"] == ("mine", "test", "there")
    found = setup(data=data | {"kind": "sample", "name": "40", "dir": "there"})
    folder = str(tmp_path / "run" / "tfds-40")
    assert found.data["train"] == ("flickr8k_tfds", "train[:9]", folder)
    assert (found.data_set, found.data_dir) == ("flickr8k_tfds", folder)


def test_damaged_records_are_replaced_in_training_alone(setup):
    found = setup(data={"on_corrupt_image": "replace"}).data
    assert [isinstance(found[split], Replacing) for split in SPLITS] == [True, True, False]
    assert not any(isinstance(source, Replacing) for source in setup().data.values())


def test_sources_of_ones_own_count_instead_of_what_the_config_names(setup, tiny):
    given = sources_of(tiny)
    found = setup(given=given, data={"kind": "sample", "name": "40"})
    assert found.data == given
    assert (found.data_set, found.data_pending, found.pending) == ("", False, False)


# --- What is to come


def test_what_a_killed_build_has_left_is_no_data(setup, tmp_path):
    found = setup(data={"kind": "sample", "name": "40"})
    for version, to_come in (("incomplete.H0VW5D_1.0.0", True), ("1.0.0", False)):
        folder = tmp_path / "run" / "tfds-40" / "flickr8k_tfds" / "original" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").touch()
        assert found.data_pending is found.pending is to_come


def test_a_tokenizer_that_the_run_makes(setup, tmp_path):
    new = {"checkpoint": "", "tokenizer": "", "vocab_size": 300}
    found = setup(model=new)
    path = tmp_path / "run" / "tokenizer.model"
    assert found.made_tokenizer == str(path)
    assert found.tokenizer_pending and found.pending
    assert found.model.language.vocab_size == 300
    path.parent.mkdir()
    path.write_bytes(pg.tokenizer.train(pg.testing.tiny_captions(), 290))
    made = setup(model=new)  # by an earlier start of the run
    assert not made.tokenizer_pending and not made.pending
    assert made.tokenizer.vocab_size == made.model.language.vocab_size == 290


def test_a_tokenizer_that_is_named_is_not_made(setup, tiny):
    found = setup(model={"checkpoint": "", "vocab_size": 300})
    assert (found.made_tokenizer, found.tokenizer_pending) == ("", False)
    assert found.tokenizer.name == tiny.model.tokenizer
    assert found.model.language.vocab_size == found.tokenizer.vocab_size


def test_the_tokenizer_is_the_checkpoints_own_or_paligemmas(setup, tiny, monkeypatch):
    nano = setup(model={"checkpoint": "nano", "tokenizer": ""})
    assert nano.tokenizer.vocab_size == nano.model.language.vocab_size
    monkeypatch.setattr(pg.hub, "fetch_tokenizer", lambda: tiny.model.tokenizer)
    found = setup(model={"checkpoint": "", "tokenizer": ""})
    assert found.tokenizer.name == tiny.model.tokenizer


def test_a_model_on_kaggle_is_to_come_until_it_is_here(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(kaggle_access, "cached_path", lambda handle: None)
    away = setup(model={"checkpoint": HANDLE, "image_size": 448})
    assert away.local_checkpoint is None and away.pending
    assert away.model.vision.image_size == 448
    monkeypatch.setattr(kaggle_access, "cached_path", lambda handle: tmp_path)
    assert setup(model={"checkpoint": HANDLE}).local_checkpoint == str(tmp_path)
    assert not setup(model={"checkpoint": HANDLE}).pending


# --- The model


def test_settings_of_a_run_go_into_the_model(setup):
    stored = setup().model
    assert (stored.dtype, stored.remat) == ("float32", "dots")
    side = stored.vision.image_size
    given = {"image_size": 2 * side, "dtype": "bfloat16", "remat": "full"}
    larger = setup(model=given).model
    assert (larger.vision.image_size, larger.dtype, larger.remat) == (2 * side, "bfloat16", "full")
    vision = dataclasses.replace(larger.vision, image_size=side)
    assert dataclasses.replace(larger, vision=vision, dtype="float32", remat="dots") == stored


def test_the_devices_are_split_as_asked():
    assert Setup(RunConfig()).mesh.shape["fsdp"] == jax.device_count()
    assert Setup(RunConfig(fsdp=1)).mesh.shape["fsdp"] == 1
