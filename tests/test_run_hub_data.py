"""Runs on data of the Hugging Face Hub, which may change while they go on."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from finetune_cases import finetune, of, setup_of, tiny_run
from form_cases import packed
from process_cases import launched

from paligemma_lib.run.record import recorded_commits
from paligemma_lib.train.compatibility import CHECKPOINTS, newest_run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def dogs(hub):
    repo = hub.add("datasets/somebody/dogs")
    repo.commit(
        {f"data/{split}-0.parquet": packed(12) for split in ("train", "validation", "test")}
    )
    return repo


def on_dogs(tmp_path, **changes):
    names = {"data.kind": "auto", "data.train": "somebody/dogs"}
    names |= {"data.validation": "validation", "data.test": "test", "epochs": 1.0}
    return of(tiny_run(tmp_path), tmp_path / "run", **names | changes)


def test_a_split_that_is_named_comes_alone(hub, dogs, tmp_path):
    names = {f"data.{split}": f"somebody/dogs#{split}" for split in ("train", "validation")}
    data = setup_of(on_dogs(tmp_path, **names, **{"data.test": names["data.validation"]})).data
    assert [len(source) for source in data.values()] == [12, 12, 12]
    assert not any("test-0" in path for path in hub.requests)


@pytest.mark.slow
def test_a_resumed_run_keeps_its_commit_when_the_branch_has_moved(hub, dogs, tmp_path, capsys):
    config = on_dogs(tmp_path)
    assert finetune(config) == 0
    workdir = tmp_path / "run"
    began = dogs.refs["main"]
    assert recorded_commits(workdir) == {"somebody/dogs@main": began}
    step, run = newest_run(workdir / CHECKPOINTS)
    moved = dogs.commit({"data/train-0.parquet": packed(13), "data/test-0.parquet": packed(12, 5)})
    hub.requests.clear()
    longer = of(config, workdir, **{"epochs": 2.0, "allow_changed": ("epochs",)})
    assert finetune(longer) == 0
    assert recorded_commits(workdir) == {"somebody/dogs@main": began}
    assert newest_run(workdir / CHECKPOINTS)[0] > step
    assert newest_run(workdir / CHECKPOINTS)[1]["data"] == run["data"]
    assert not any(moved in path or "/revision/" in path for path in hub.requests)
    # A new run begins with the new commit, and another one has to be asked for.
    assert len(setup_of(of(config, tmp_path / "new")).data["train"]) == 13
    other = of(longer, workdir, **{"data.train": f"somebody/dogs@{moved}"})
    with pytest.raises(ValueError, match=f"data.train: was 'somebody/dogs', is .*{moved}"):
        finetune(other)


def test_one_split_alone_is_divided(hub, tmp_path, caplog):
    hub.add("datasets/somebody/cats").commit({"test.parquet": packed(60)})
    caplog.set_level("INFO", "paligemma_lib")
    data = setup_of(on_dogs(tmp_path, **{"data.train": "somebody/cats"})).data
    counts = [len(source) for source in data.values()]
    assert sum(counts) == 60 and counts[0] > 40 and min(counts) > 0
    assert "has the split test alone: a hash of the names divides it" in caplog.text


_TOGETHER = """
import sys
import jax
from paligemma_lib.run import DataConfig, RunConfig, Setup
from paligemma_lib.runtime import processes

with processes.joined():
    if jax.process_index() == 1:  # whatever it would find, it reads what the main process reads
        import paligemma_lib.run.setup as module
        module.commits_of = None
    setup = Setup(RunConfig(data=DataConfig(train=sys.argv[1])))
    try:
        said = f"{setup.commits} {len(setup.data['train'])}"
    except OSError as error:
        said = error
    print(f"process {jax.process_index()}: {said}", flush=True)
"""


@pytest.mark.slow
def test_processes_read_the_commit_of_the_main_process(hub, dogs, tmp_path, monkeypatch):
    script = tmp_path / "together.py"
    script.write_text(_TOGETHER)

    def together(name):
        result = launched(2, [str(script), name], hub.environment)
        assert result.returncode == 0, result.stderr[-3000:]
        return re.findall(r"process \d: (.*)", result.stdout + result.stderr)

    one, other = together("somebody/dogs")
    assert one == other == f"{{'somebody/dogs@main': '{dogs.refs['main']}'}} 12"
    one, other = together("hf://datasets/somebody/cats")
    assert one == other and one.startswith("somebody/cats@main is not on the Hugging Face Hub")


@pytest.mark.slow
def test_the_command_line_reads_the_hub(hub, dogs):
    def told(*words, **environment):
        command = [sys.executable, "-m", "paligemma_lib", "data", *words]
        return subprocess.run(
            command,
            env=os.environ | hub.environment | {"PYTHONPATH": str(ROOT)} | environment,
            capture_output=True,
            text=True,
        )

    result = told("somebody/dogs", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["splits"] == {"test": 12, "train": 12, "validation": 12}
    assert f"somebody/dogs, commit {dogs.refs['main']}: 3 .parquet" in result.stderr
    offline = told("somebody/dogs", "--json", HF_HUB_OFFLINE="1")
    assert json.loads(offline.stdout) == found
    for words, why in (
        (["somebody/cats"], "somebody/cats@main is not on the Hugging Face Hub, or it is private"),
        (["somebody/dogs@v9"], "somebody/dogs@v9: no such revision"),
        (["hf://datasets/somebody"], "expected hf://datasets/OWNER/NAME"),
    ):
        wrong = told(*words)
        assert wrong.returncode == 1 and why in wrong.stderr
        assert "Traceback" not in wrong.stderr
