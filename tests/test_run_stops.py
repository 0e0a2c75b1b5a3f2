"""The main job stopped, moved, disturbed and gone on with: nothing is lost, nothing is silent."""

import json
import re
import shutil
import signal

import jax
import numpy as np
import pytest
from finetune_cases import exported, finetune, losses, of, tiny_run

import paligemma_lib as pg
from paligemma_lib.run import captioning, export, from_config_dict, record, validate
from paligemma_lib.runtime.locks import locked
from paligemma_lib.runtime.termination import Termination

QUICK = {"evaluate_before": False, "validate_every": 0.0, "test_images": 1}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("stops"))


@pytest.fixture
def stop(monkeypatch):
    """Has the run asked to end by a signal after so many questions whether it is."""

    def after(count, number=signal.SIGINT):
        asked = []
        agreed = Termination.agreed

        def asking(self):
            asked.append(1)
            if len(asked) == count:
                self._note(number, None)
            return agreed(self)

        monkeypatch.setattr(Termination, "agreed", asking)

    return after


@pytest.fixture
def validated(monkeypatch):
    """Has validations find these losses."""

    def find(losses):
        def run(self, state, done):
            self._progress.note(done, {"validation_loss": losses[done]})
            return {done: losses[done]}

        monkeypatch.setattr(validate.Validation, "run", run)

    return find


def same(found, wanted):
    for name, value in exported(wanted).items():
        np.testing.assert_array_equal(exported(found)[name], value)


def test_a_stopped_run_goes_on_in_a_workdir_that_was_moved(config, tmp_path, stop, monkeypatch):
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    assert finetune(of(config, whole, **QUICK)) == 0
    stop(7, signal.SIGINT)
    assert finetune(of(config, tmp_path / "run", **QUICK)) == 130
    assert 0 < len(losses(tmp_path / "run")) < 9
    monkeypatch.undo()
    (tmp_path / "run").rename(moved)
    assert finetune(of(config, moved, **QUICK)) == 0
    assert losses(moved) == losses(whole)
    same(moved, whole)


def test_inputs_that_changed_meanwhile_are_named(config, tmp_path, stop, monkeypatch):
    for kind, name in (("train", "jsonl"), ("tokenizer", "model")):
        source = config.data.train if kind == "train" else config.model.tokenizer
        shutil.copy(source, tmp_path / f"{kind}.{name}")
    changes = {
        **QUICK,
        "data.train": str(tmp_path / "train.jsonl"),
        "data.images": config.data.train.rpartition("/")[0],
        "model.tokenizer": str(tmp_path / "tokenizer.model"),
    }
    run = of(config, tmp_path / "run", **changes)
    stop(4)
    assert finetune(run) == 130
    monkeypatch.undo()

    lines = (tmp_path / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text(lines.replace('"suffix": "', '"suffix": "a ', 1))
    tokenizer = (tmp_path / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(tokenizer + b"\xd2\x0f\x01x")  # an unknown field
    other = {**record.record_of(from_config_dict(run), "")["software"], "jax": "9.9"}
    monkeypatch.setattr(record, "_versions", lambda: other)
    with pytest.raises(ValueError, match=r"step 2:\n  software.jax: was '[\d.]+', is '9.9'\nUse"):
        finetune(run)
    allowed = {**changes, "allow_changed": ("software",)}
    with pytest.raises(ValueError, match="holds a run with another configuration") as caught:
        finetune(of(config, tmp_path / "run", **allowed))
    told = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:-1]]
    assert told == ["data.train", "tokenizer"]
    allowed["allow_changed"] = ("software", "data.train", "tokenizer")
    assert finetune(of(config, tmp_path / "run", **allowed)) == 0


def test_a_run_without_a_lower_loss_ends_early_and_once(config, tmp_path, validated, capsys):
    validated({3: 2.0, 6: 2.5, 9: 1.0})
    run = of(config, tmp_path, **QUICK | {"validate_every": 1.0, "early_stopping": 1})
    for _ in range(2):  # the second time there is nothing to do
        assert finetune(run) == 0
        assert list(losses(tmp_path)) == list(range(6))
        said = capsys.readouterr()
        assert "step 6 of 9: ended early: 1 validations without a lower loss" in said.err
        assert "6 steps trained" in said.out


def test_the_best_checkpoint_is_exported(config, tmp_path, validated, capsys):
    changes = QUICK | {"validate_every": 1.0, "save_every": 0.0, "keep": 1}
    validated({3: 0.5, 6: 0.7, 9: 0.9})
    assert finetune(of(config, tmp_path / "until 6", **changes, early_stopping=1)) == 0
    validated({3: 0.9, 6: 0.5, 9: float("nan")})
    best = tmp_path / "best"
    assert finetune(of(config, best, **changes, export_best=True)) == 0
    same(best, tmp_path / "until 6")  # whose stages differ from those of the last step
    assert sorted(path.name for path in (best / "checkpoints").iterdir()) == ["6", "9"]
    told = "The model is that after 6 steps, which has the lowest validation loss."
    assert told in capsys.readouterr().out
    assert told in (best / "report.html").read_text()
    (best / "metrics.jsonl").unlink()  # the checkpoints know their losses
    assert finetune(of(config, best, **changes, export_best=True)) == 0
    same(best, tmp_path / "until 6")
    assert finetune(of(config, best, **changes)) == 0  # the last one, on second thoughts
    assert any(
        (exported(best)[k] != exported(tmp_path / "until 6")[k]).any() for k in exported(best)
    )


def test_the_model_is_exported_as_a_folder_and_kept_whatever_fails_behind_it(
    config, tmp_path, monkeypatch
):
    def fail(*_):
        raise OSError("no space for the report")

    run = of(config, tmp_path, **QUICK | {"epochs": 0.3, "export": "mine"})
    with monkeypatch.context() as patched:
        patched.setattr(export, "caption_test_images", fail)
        with pytest.raises(OSError, match="no space for the report"):
            finetune(run)
    found = pg.load(tmp_path).params  # the workdir stands for its model
    assert finetune(run) == 0  # the folder is made anew
    jax.tree.map(np.testing.assert_array_equal, pg.load(tmp_path).params, found)


def test_a_float16_overflow_is_no_loss(config, tmp_path, monkeypatch, caplog):
    gathered = export.gather_params

    def large(params):
        return jax.tree.map(lambda x: x * 0 + 1e5, gathered(params))

    monkeypatch.setattr(export, "gather_params", large)
    run = of(config, tmp_path, **QUICK | {"epochs": 0.3, "export_dtype": "float16"})
    assert finetune(run) == 0
    assert re.search("is written in bfloat16, not float16: .* too large", caplog.text)
    assert {str(x.dtype) for x in jax.tree.leaves(pg.load(tmp_path).params)} == {"bfloat16"}


def test_a_workdir_in_use_is_told(config, tmp_path):
    with locked(tmp_path), pytest.raises(OSError, match="is in use by process .*another folder"):
        finetune(of(config, tmp_path))


@pytest.mark.slow
def test_captions_before_training_are_made_anew_where_they_would_differ(
    config, tmp_path, monkeypatch, caplog
):
    made = []
    caption = captioning.caption_test_images

    def counted(*args, **kwargs):
        made.append(kwargs.get("count", 0))
        return caption(*args, **kwargs)

    monkeypatch.setattr(captioning, "caption_test_images", counted)
    run = of(config, tmp_path, **QUICK | {"evaluate_before": True, "epochs": 0.3})
    caplog.set_level("INFO")
    for changes, times in (
        ({}, 1),
        ({}, 0),
        ({"max_new_tokens": 3}, 1),
        ({"max_new_tokens": 3, "test_images": 2}, 1),
        ({"max_new_tokens": 3, "test_images": 1}, 0),
        ({"max_new_tokens": 3, "test_images": 2}, 0),
    ):
        made.clear()
        assert finetune(of(run, tmp_path, **changes)) == 0
        assert len(made) == times
    assert re.search(r"captions 2 test images, the first of \d+; test_images=0", caplog.text)
    page = (tmp_path / "report.html").read_text()
    assert re.search(r"2 held-out test images, the first of \d+<", page)
    path = tmp_path / captioning.BEFORE
    path.write_text("[{]")
    assert finetune(of(run, tmp_path, **changes)) == 0
    assert len(json.loads(path.read_text())) == 2
    assert path.with_name("predictions_before.json.damaged").read_text() == "[{]"
    assert "predictions_before.json: put aside" in caplog.text
