"""`paligemma sweep`: which run is best, that none is made twice, and what is wrong told before."""

import math
import sys

import pytest

from paligemma_lib.cli import main, sweep
from paligemma_lib.runtime.strict_json import dumps


def finished(workdir, losses, cider, names=("CIDEr", "BLEU-4")):
    workdir.mkdir(parents=True)
    records = [{"step": 1, "loss": 5.0}]
    records += [{"step": k, "validation_loss": x} for k, x in enumerate(losses, 2)]
    (workdir / sweep.METRICS).write_text("".join(dumps(each) + "\n" for each in records))
    scores = {name: {"value": 100 * cider / k} for k, name in enumerate(names, 1)}
    (workdir / sweep.SCORES).write_text(dumps({"scores": scores}))


@pytest.fixture
def runs(monkeypatch):
    """Commands that would have been run; each leaves a finished run, save where it says 9."""
    commands = []

    def run(command):
        commands.append(command)
        words = dict(word.partition("=")[::2] for word in command if "=" in word)
        value = command[-2 - ("--cpu" in command)].rpartition("=")[2]
        if value in ("9", "15"):
            return {"9": 3, "15": 143}[value]
        workdir = sweep.Path(words["--config.workdir"])
        finished(workdir, [3.0, float(value) + 1], float(value))
        return 0

    monkeypatch.setattr(sweep, "run_one", run)
    return commands


@pytest.fixture
def swept(tmp_path):
    return lambda *words: main(["sweep", *words, "--folder", str(tmp_path)])


def test_every_value_gets_a_run_with_what_else_was_given(runs, swept, tmp_path, capsys):
    (tmp_path / "my.py").write_text(
        "from paligemma_lib.run import base_config as get_config\n__all__ = ['get_config']\n"
    )
    config = f"--config={tmp_path / 'my.py'}"
    field = "optimizer.learning_rate"
    assert swept(field, "0.5", "0.01", config, "--config.epochs", "2") == 0
    assert runs == [
        [sys.executable, "-m", "paligemma_lib", "finetune", config, "--config.epochs=2",
         f"--config.{field}={value}", f"--config.workdir={tmp_path / f'{field}={value}'}"]
        for value in ("0.5", "0.01")
    ]  # fmt: skip
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split() == ["0.5", "1.5000", "50.0", "25.0"]
    assert rows[2].split() == ["0.01", "1.0100", "1.0", "0.5", "<-", "lowest", "validation", "loss"]
    page = (tmp_path / "sweep.html").read_text()
    assert "optimizer.learning_rate=0.01 has the lowest validation loss, 1.0100." in page
    assert "log10 of optimizer.learning_rate" in page


def test_the_demo_is_what_is_swept_by_default(runs, swept):
    assert swept("seed", "1", "2", "--cpu") == 0
    assert [command[4] for command in runs] == ["--config=demo"] * 2
    assert all(command[-1] == "--cpu" for command in runs)


def test_finished_runs_are_not_repeated_and_a_failure_ends_it(runs, swept, tmp_path, capsys):
    finished(tmp_path / "seed=1", [2.0], 0.1)
    assert swept("seed", "1", "9", "2") == 1
    assert [command[-2] for command in runs] == ["--config.seed=9"]
    assert "seed=9 ended with exit code 3" in capsys.readouterr().err


def test_a_run_that_was_stopped_stops_the_sweep_with_the_same_code(runs, swept):
    assert swept("seed", "15", "2") == 143
    assert len(runs) == 1


@pytest.mark.parametrize("names", [("VQA accuracy", "Exact match"), ("Mean IoU", "F1"), ("Mine",)])
def test_runs_of_any_task_are_compared_by_the_scores_that_they_have(names, swept, tmp_path, capsys):
    for value in ("1", "2"):
        finished(tmp_path / f"seed={value}", [float(value)], float(value) / 10, names)
    assert swept("seed", "1", "2") == 0
    header, first, second = capsys.readouterr().out.splitlines()[:3]
    assert header.split("  ")[-1].strip() == names[-1]
    assert "1.0000" in first and "10.0" in first and first.endswith("<- lowest validation loss")
    assert "20.0" in second and "<-" not in second
    page = (tmp_path / "sweep.html").read_text()
    assert all(name in page for name in names) and f"{names[0]} 20.0" in page


def test_without_a_validation_loss_the_first_score_says_which_is_best(swept, tmp_path, capsys):
    finished(tmp_path / "seed=1", [], 0.1)
    finished(tmp_path / "seed=2", [math.nan], 0.2)
    assert swept("seed", "1", "2") == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split() == ["1", "none", "10.0", "5.0"]
    assert rows[2].split() == ["2", "none", "20.0", "10.0", "<-", "highest", "CIDEr"]
    page = (tmp_path / "sweep.html").read_text()
    assert "seed=2 has the highest CIDEr, 20.0000." in page and "loss inf" not in page
    assert "No run measured a validation loss." in page


def test_no_run_is_best_of_those_that_diverged(swept, tmp_path, capsys):
    for value in ("1", "2"):
        finished(tmp_path / f"seed={value}", [math.inf], math.nan)
    assert swept("seed", "1", "2") == 0
    assert "<-" not in capsys.readouterr().out


def test_damage_of_the_metrics_is_told(swept, tmp_path, capsys):
    finished(tmp_path / "seed=1", [2.0], 0.1)
    with (tmp_path / "seed=1" / sweep.METRICS).open("a") as file:
        file.write("[]\n")
    assert swept("seed", "1") == 0
    told = f"{tmp_path}/seed=1/metrics.jsonl: 1 of 3 lines are damaged, line 3"
    assert f"warning: {told}" in capsys.readouterr().err
    assert told in (tmp_path / "sweep.html").read_text()


def test_a_run_without_scores_is_not_finished(swept, tmp_path, capsys):
    finished(tmp_path / "seed=1", [2.0], 0.1, names=())
    assert swept("seed", "1") == 1
    assert "is not that of a finished run" in capsys.readouterr().err


def test_what_is_no_number_is_plotted_in_the_order_given():
    assert sweep.places("optimizer.name", ["sgd", "adamw"])[0] == [1, 2]
    assert sweep.places("batch_size", ["8", "16"]) == ([8, 16], "batch_size")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seed", "1", "1"], "a value is given twice: 1 1"),
        (["seed", "a/b"], "'a/b' cannot name the folder of a run"),
        (["seed", ""], "'' cannot name the folder of a run"),
        (["seed"], "the following arguments are required: values"),
        (["sed", "1", "2"], "sed: unknown field; did you mean seed?"),
        (["learning_rate", "1"], "did you mean optimizer.learning_rate?"),
        (["seed", "1", "two"], "seed='two': expected a valid integer"),
        (
            ["batch_size", "8", "9", "--config.microbatches=2"],
            "batch_size=9: expected a multiple of microbatches",
        ),
        (["seed", "1", "2", "--config.epoch=1"], "epoch: unknown field"),
        (["seed", "1", "2", "--config=no.py"], "no such file or recipe"),
        (["seed", "1", "2", "--confg=demo"], "--confg=demo"),
    ],
)
def test_what_is_asked_wrongly_is_told_before_the_first_run(words, told, runs, swept, capsys):
    assert swept(*words) == 2
    out, err = capsys.readouterr()
    assert (out, runs) == ("", [])
    assert told in err and "Traceback" not in err


def test_a_folder_is_asked_for(runs, capsys):
    assert main(["sweep", "seed", "1", "2"]) == 2
    assert "--folder" in capsys.readouterr().err and runs == []
