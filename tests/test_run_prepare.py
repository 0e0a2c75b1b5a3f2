"""What a run is made of: sources of every kind, and what is refused before the first step."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from finetune_cases import leave_record, of, setup_of, tiny_run

from paligemma_lib import sample_data
from paligemma_lib.run import prepare, require
from paligemma_lib.run.config import SPLITS
from paligemma_lib.train import memory
from paligemma_lib.train.compatibility import CHECKPOINTS


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("ingredients"))


def test_folders_are_read_as_they_are(config, tmp_path):
    folder = str(sample_data.write_scenes(tmp_path / "scenes", 3))
    changes = {"data.kind": "folder"} | {
        f"data.{split}": folder for split in ("train", "validation", "test")
    }
    train = setup_of(of(config, tmp_path, **changes)).data["train"]
    (record,) = train.read([0])
    assert len(train) == 3 and len(record.captions) == 5


def test_an_unknown_kind_is_refused_with_those_that_are_known(config, tmp_path):
    with pytest.raises(ValueError, match="expected auto, tfds, jsonl"):
        setup_of(of(config, tmp_path, **{"data.kind": "csv"}))


def test_too_little_memory_is_told_before_parameters_are_loaded(config, tmp_path, monkeypatch):
    little = SimpleNamespace(available=1 << 20)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: little)
    monkeypatch.setattr(prepare, "load_params", lambda *_: pytest.fail("parameters were loaded"))
    with pytest.raises(ValueError, match="GiB are free. What helps"):
        prepare.prepare(setup_of(of(config, tmp_path)))


def test_captions_of_validation_must_fit_all_at_once(config, tmp_path):
    """They are packed there, also where training takes one at a time."""
    lines = [{"image": "0.png", "suffix": ["a " * 20] * 3}]
    folder = Path(config.data.train).parent
    (folder / "long.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    long = {"data.train": str(folder / "long.jsonl"), "captions": "sample"}
    prepare.prepare(setup_of(of(config, tmp_path, **long)))
    long["data.validation"] = long["data.train"]
    with pytest.raises(ValueError, match="of 3 captions.*text_len is 64"):
        prepare.prepare(setup_of(of(config, tmp_path, **long)))


def test_a_length_that_was_found_before_is_taken_over(config, tmp_path):
    run = of(config, tmp_path, text_len=0)
    found = prepare.prepare(setup_of(run))
    length = found.config.text_len
    assert found.record["text_len"] == length > 0
    leave_record(tmp_path / CHECKPOINTS, 3, {**found.record, "text_len": length + 32})
    assert prepare.prepare(setup_of(run)).config.text_len == length + 32
    given = of(config, tmp_path, text_len=64)
    assert prepare.prepare(setup_of(given)).config.text_len == 64


def test_what_a_run_makes_is_checked_when_it_is_there(config, tmp_path):
    """Drawn images and their tokenizer: nothing of them is known before."""
    drawn = of(config, tmp_path, **{"data.kind": "sample", "data.name": "30", "batch_size": 2})
    drawn.data.train, drawn.data.validation, drawn.data.test = SPLITS
    drawn.model.checkpoint = drawn.model.tokenizer = ""
    drawn.model.vocab_size, drawn.text_len = 300, 16
    before = setup_of(drawn)
    assert before.data_pending and before.tokenizer_pending
    require(before)
    with pytest.raises(ValueError, match=r"image scene_.* text_len is 16"):
        prepare.prepare(setup_of(drawn))
    drawn.text_len = 512
    run = prepare.prepare(setup_of(drawn))
    assert run.tokenizer.vocab_size == run.model.language.vocab_size == 300
    assert sum(map(len, run.data.values())) == 30
    assert not setup_of(drawn).pending
