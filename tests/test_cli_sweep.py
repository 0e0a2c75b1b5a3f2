"""Several runs side by side: which is best, and that none is made twice."""

import json
import subprocess

import pytest

from paligemma_lib.cli import main, sweep


def finished(workdir, losses, cider):
    workdir.mkdir(parents=True)
    records = [{"step": 1, "loss": 5.0}, *({"step": 2, "validation_loss": x} for x in losses)]
    (workdir / sweep.METRICS).write_text("".join(json.dumps(each) + "\n" for each in records))
    scores = {"CIDEr": {"value": cider}, "BLEU-4": {"value": cider / 2}}
    (workdir / sweep.SCORES).write_text(json.dumps({"scores": scores}))


@pytest.fixture
def runs(monkeypatch):
    """Commands that would have been run; each leaves a finished run, save where it says 9."""
    commands = []

    def run(command):
        commands.append(command)
        value = command[-2].rpartition("=")[2]
        if value == "9":
            return subprocess.CompletedProcess(command, 3)
        finished(sweep.Path(command[-1].partition("=")[2]), [3.0, float(value) + 1], float(value))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sweep.subprocess, "run", run)
    return commands


def test_every_value_gets_a_run_with_what_else_was_given(runs, tmp_path, capsys):
    config = tmp_path / "my.py"
    config.write_text("from paligemma_lib.run import base_config as get_config\n")
    argv = ["optimizer.learning_rate", "0.5", "0.01", "--folder", str(tmp_path)]
    assert main(["sweep", *argv, f"--config={config}", "--config.seed=3"]) == 0
    assert [command[1:-1] for command in runs] == [
        ["-m", "paligemma_lib", "finetune", f"--config={config}", "--config.seed=3",
         f"--config.optimizer.learning_rate={value}"]
        for value in ("0.5", "0.01")
    ]  # fmt: skip
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split() == ["0.5", "1.5000", "0.500", "0.250"]
    assert rows[2].split() == ["0.01", "1.0100", "0.010", "0.005", "<-", "lowest", "loss"]
    page = (tmp_path / "sweep.html").read_text()
    assert "optimizer.learning_rate=0.01 has the lowest validation loss, 1.0100." in page
    assert "log10 of optimizer.learning_rate" in page


def test_finished_runs_are_not_repeated_and_a_failure_ends_it(runs, tmp_path):
    finished(tmp_path / "seed=1", [2.0], 0.1)
    assert main(["sweep", "seed", "1", "9", "2", "--folder", str(tmp_path)]) == 1
    assert [command[-2] for command in runs] == ["--config.seed=9"]


def test_what_is_no_number_is_plotted_in_the_order_given():
    assert sweep.places("optimizer.name", ["sgd", "adamw"])[0] == [1, 2]
    assert sweep.places("batch_size", ["8", "16"]) == ([8, 16], "batch_size")


@pytest.mark.parametrize("values", [["1", "1"], ["a/b"]])
def test_values_that_cannot_name_folders_are_refused(values, tmp_path):
    assert main(["sweep", "seed", *values, "--folder", str(tmp_path)]) == 2


def test_what_no_run_takes_is_told_before_the_first(runs, tmp_path, capsys):
    assert main(["sweep", "sed", "1", "2", "--folder", str(tmp_path)]) == 2
    assert "sed: there is no such field; did you mean seed?" in capsys.readouterr().err
    assert main(["sweep", "seed", "1", "few", "--folder", str(tmp_path)]) == 2
    assert "seed='few': expected a valid integer" in capsys.readouterr().err
    assert runs == []
