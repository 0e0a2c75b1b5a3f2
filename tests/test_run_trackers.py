"""Trackers of the library: what services keep, offline, and that none of them stops a run."""

import json
import math
import socket
import sqlite3
import subprocess
import sys
import time

import finetune_cases
import numpy as np
import pytest

from paligemma_lib.run import RunConfig
from paligemma_lib.run.config import TRACKERS
from paligemma_lib.run.options import ConfigError
from paligemma_lib.run.tracked_runs import TrackedRun, flat
from paligemma_lib.run.trackers import trackers_of
from paligemma_lib.train.tracking import Trackers

IMAGE = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Settings of the services that keep everything in a folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        **{f"WANDB_{name}_DIR": str(tmp_path) for name in ("CONFIG", "CACHE", "DATA")},
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def run_twice(folder, name: str) -> None:
    """Two starts of a run, each with two steps, a caption, and a value that is not finite."""
    config = RunConfig(workdir=str(folder / "mine"), trackers=(name,))
    (folder / "mine").mkdir()
    for first in (0, 2):
        time.sleep(1.1)  # W&B names a start by its second
        (tracker,) = trackers_of(config)
        for step in (first, first + 1):
            tracker.scalars({"loss": 2.0 - step, "grad_norm": math.nan}, step)
        tracker.caption("a/b: é.jpg", IMAGE, "a dog runs", first + 1)
        tracker.close()


@pytest.mark.slow
def test_wandb_keeps_a_run_offline(offline):
    pytest.importorskip("wandb", reason="needs wandb")
    run_twice(offline, "wandb")
    run_id = (offline / "mine" / "wandb_run.txt").read_text().strip()
    starts = sorted((offline / "mine" / "wandb").glob(f"offline-run-*-{run_id}"))
    assert len(starts) == 2  # of one run
    kept = b"".join((start / f"run-{run_id}.wandb").read_bytes() for start in starts)
    for told in (b"loss", b"train_step", b"a dog runs", b"batch_size"):
        assert told in kept
    assert len(list(starts[0].glob("files/media/images/**/*.png"))) == 1


@pytest.mark.slow
def test_mlflow_keeps_a_run_in_a_database(offline):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    run_twice(offline, "mlflow")
    client = mlflow.MlflowClient()
    run_id = (offline / "mine" / "mlflow_run.txt").read_text().strip()
    losses = client.get_metric_history(run_id, "loss")
    assert [(each.step, each.value) for each in losses] == [(0, 2), (1, 1), (2, 0), (3, -1)]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.learning_rate"] == "5e-05"
    assert "grad_norm" not in run.data.metrics
    (folder,) = client.list_artifacts(run_id, "captions")
    names = [each.path.rpartition("/")[2] for each in client.list_artifacts(run_id, folder.path)]
    assert names == [f"step_0000000{k}.{end}" for k in (1, 3) for end in ("png", "txt")]
    text = mlflow.artifacts.load_text(f"runs:/{run_id}/{folder.path}/step_00000001.txt")
    assert text == "a dog runs"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("NaN"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_mlflow_tells_how_a_run_ended(offline, error, status):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    trackers = trackers_of(RunConfig(workdir=str(offline), trackers=("mlflow",)))
    with pytest.raises(type(error)), Trackers(trackers):
        raise error
    run_id = (offline / "mlflow_run.txt").read_text().strip()
    assert mlflow.MlflowClient().get_run(run_id).info.status == status


@pytest.mark.slow
def test_wandb_tells_how_a_run_ended_and_does_not_wait_for_hours(offline):
    pytest.importorskip("wandb", reason="needs wandb")
    (tracker,) = trackers_of(RunConfig(workdir=str(offline), trackers=("wandb",)))
    with pytest.raises(ValueError, match="NaN"), Trackers([tracker]):
        raise ValueError("NaN")
    assert tracker._run.settings.finish_timeout == 60
    assert tracker._run._exit_code == 1


@pytest.mark.slow
def test_trackio_keeps_a_run_on_this_machine(offline):
    pytest.importorskip("trackio", reason="needs trackio")
    # A process of its own: trackio reads its folder when it is imported.
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import test_run_trackers as tests; "
        "tests.run_twice(pathlib.Path.cwd(), 'trackio')"
    )
    tests = str(finetune_cases.Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, tests], check=True, timeout=120)
    with sqlite3.connect(offline / "trackio" / "paligemma_lib.db") as database:
        rows = database.execute(
            "SELECT run_name, step, CAST(metrics AS TEXT) FROM metrics"
        ).fetchall()
    losses = {step: json.loads(kept)["loss"] for _, step, kept in rows if '"loss"' in kept}
    assert losses == {0: 2, 1: 1, 2: 0, 3: -1}
    assert {name for name, *_ in rows} == {(offline / "mine" / "trackio_run.txt").read_text()[:-1]}
    assert any("a dog runs" in kept for *_, kept in rows)
    assert len(list((offline / "trackio" / "media").rglob("*.png"))) == 2


@pytest.mark.slow
def test_a_service_that_cannot_be_reached_is_left_out(offline, monkeypatch, caplog):
    pytest.importorskip("mlflow", reason="needs mlflow")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert trackers_of(RunConfig(workdir=str(offline), trackers=("mlflow",))) == []
    assert "MlflowTracker cannot be started" in caplog.text


@pytest.mark.slow
def test_without_a_key_nobody_is_asked_for_one(offline, monkeypatch, caplog):
    pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("HOME", str(offline))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("wandb.login", lambda **how: how != {"prompt": False})
    assert trackers_of(RunConfig(workdir=str(offline), trackers=("wandb",))) == []
    assert "run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline" in caplog.text


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_package_that_is_missing_is_told_before_the_run(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, TRACKERS[name].partition(":")[0], raising=False)
    with pytest.raises(ConfigError, match=rf"needs {name}: pip install 'paligemma_lib\[{name}\]'"):
        trackers_of(RunConfig(trackers=(name,)))


def test_the_id_of_a_run_lies_in_its_workdir(tmp_path):
    (tmp_path / "my runs: 1").mkdir()
    run = TrackedRun(tmp_path / "my runs: 1", "wandb")
    assert run.name == "my-runs--1"
    assert run.known() is None
    run_id = run.begin()
    assert run_id.startswith("my-runs--1-")
    assert TrackedRun(tmp_path / "my runs: 1", "wandb").known() == run_id
    assert TrackedRun(tmp_path / "my runs: 1", "mlflow").known() is None
    for broken in (b"", b"../../etc", b"\xff", b"a b", b"x" * 10_000):
        (tmp_path / "my runs: 1" / "wandb_run.txt").write_bytes(broken)
        assert run.known() is None
    assert run.begin("theirs") == "theirs" == run.known()


def test_configs_become_one_level_of_dotted_names():
    assert flat({"a": 1, "b": {"c": (2,), "d": {"e": None}}}) == {
        "a": 1,
        "b.c": (2,),
        "b.d.e": None,
    }


class Remembering:
    """A tracker of one's own; `seen` outlives it."""

    seen: list = []  # noqa: RUF012  # a run starts it, and tells nobody which one it is

    def __init__(self, workdir, config):
        self.seen.append("started")

    def scalars(self, values, step):
        self.seen.append((dict(values), step))

    def caption(self, image_id, image, caption, step):
        self.seen.append(caption)

    def close(self):
        self.seen.append("closed")


def test_a_run_starts_a_tracker_once_and_reports_its_scores(tmp_path):
    config = finetune_cases.of(
        finetune_cases.tiny_run(tmp_path),
        tmp_path / "run",
        trackers=("test_run_trackers:Remembering",),
        stages=({"from_step": 0, "trainable": ("attention",), "top_layers": 1},),
        epochs=1.0,
        evaluate_before=False,
    )
    Remembering.seen.clear()
    assert finetune_cases.finetune(config) == 0
    started, *training, scores, closed = Remembering.seen
    assert (started, closed) == ("started", "closed")
    assert not {"started", "closed"} & {each for each in training if isinstance(each, str)}
    written = json.loads((tmp_path / "run" / "scores.json").read_text())["scores"]
    expected = {f"test/{name}": each["value"] for name, each in written.items()}
    assert scores == (expected, 3)
