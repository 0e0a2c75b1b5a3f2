"""What a run is made of: sources of every kind, and what is refused before the first step."""

import json
from pathlib import Path
from types import SimpleNamespace

import ingredients
import pytest
import sample_data
from finetune_cases import of, tiny_run

import paligemma_lib as pg
from paligemma_lib.train import memory


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("ingredients"))


def test_folders_are_read_as_they_are(config, tmp_path):
    folder = str(sample_data.write_scenes(tmp_path / "scenes", 3))
    changes = {"data.kind": "folder"} | {
        f"data.{split}": folder for split in ("train", "validation", "test")
    }
    data = ingredients.data_of(of(config, tmp_path, **changes), tmp_path)
    (record,) = data.train.read([0])
    assert len(data.train) == 3 and len(record.captions) == 5


def test_an_unknown_kind_is_refused_with_those_that_are_known(config, tmp_path):
    with pytest.raises(ValueError, match="expected tfds, jsonl, folder or sample"):
        ingredients.data_of(of(config, tmp_path, **{"data.kind": "csv"}), tmp_path)


def test_too_little_memory_is_told_before_parameters_are_loaded(config, tmp_path, monkeypatch):
    little = SimpleNamespace(available=1 << 20)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: little)
    monkeypatch.setattr(ingredients, "params_of", lambda *_: pytest.fail("parameters were loaded"))
    with pytest.raises(ValueError, match="GiB are free. What helps"):
        ingredients.gather(of(config, tmp_path), tmp_path, pg.sharding.make_mesh())


def test_captions_of_validation_must_fit_all_at_once(config, tmp_path):
    """They are packed there, also where training takes one at a time."""
    lines = [{"image": "0.png", "suffix": ["a " * 20] * 3}]
    folder = Path(config.data.train).parent
    (folder / "long.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    long = {"data.train": str(folder / "long.jsonl"), "captions": "sample"}
    mesh = pg.sharding.make_mesh()
    ingredients.gather(of(config, tmp_path, **long), tmp_path, mesh)
    long["data.validation"] = long["data.train"]
    with pytest.raises(ValueError, match="of 3 suffixes.*text_len is 64"):
        ingredients.gather(of(config, tmp_path, **long), tmp_path, mesh)
