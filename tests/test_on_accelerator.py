"""The measurements for an accelerator, tried out in small: every part, limits, and the table."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "on_accelerator.py"
ABSENT = ("tensorflow", "tensorflow_datasets", "ml_collections", "tensorboard", "clu", "kagglehub")
ABSENT += ("pydantic", "google_crc32c")  # what such a machine lacks

sys.path.append(str(SCRIPT.parent))
import on_accelerator  # noqa: E402
from accelerator.running import PARTS, Runner  # noqa: E402
from accelerator.speed_table import table  # noqa: E402

RESULTS = [
    {"part": "training", "what": "machine", "value": "NVIDIA H100 80GB HBM3, driver 1", "unit": ""},
    {"part": "training", "what": "batch 32, 5 an image: captions", "value": 600.0},
    {"part": "training", "what": "batch 32, 5 an image: needed FLOPs", "value": 494.5},
    {"part": "training-peer", "what": "best, batch 32: captions", "value": 100.0},
]


def command(*words: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *words]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_dry_run_goes_through_every_part(tmp_path):
    done = subprocess.run(
        command("--dry-run", "--out", str(tmp_path)), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {each["part"] for each in records} == set(PARTS)
    assert not [each for each in records if "what" not in each]  # nothing failed or was cut off
    told = (tmp_path / "table.md").read_text()
    assert done.stdout.strip() == told.strip()
    for what in (
        "a checkpoint goes on bit for bit | yes",
        "batch 8, 5 an image: captions",
        "greedy, batch 1: a token",
        "largest batch that goes",
        "full cache: first step",
    ):
        assert what in told, what


def test_the_modules_need_only_what_such_a_machine_has():
    program = (
        f"import sys\nsys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        f"for name in {ABSENT}: sys.modules[name] = None\n"
        "import importlib, accelerator, pathlib\n"
        "for path in sorted(pathlib.Path(accelerator.__path__[0]).glob('*.py')):\n"
        "    importlib.import_module(f'accelerator.{path.stem}')\n"
        "from paligemma_lib import train\ntrain.Checkpoints, train.loss\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_interruption_leaves_a_table_and_no_process(tmp_path):
    out = str(tmp_path / "out")
    process = subprocess.Popen(
        command("--dry-run", "--parts=parity", "--out", out), start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (pids := children.read_text().split()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    assert "interrupted" in (tmp_path / "out" / "table.md").read_text()
    deadline = time.monotonic() + 20  # until whoever adopts them has taken note
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_process_is_being_started_leaves_none(tmp_path, monkeypatch, number):
    execute, pids = subprocess.Popen._execute_child, []

    def interrupted(self, *args):
        execute(self, *args)
        pids.append(self.pid)
        signal.raise_signal(number)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", interrupted)
    assert Runner(tmp_path, tmp_path, dry_run=True).run(["parity", "sizes"], seconds=60) == 1
    assert "interrupted" in (tmp_path / "table.md").read_text()
    (pid,) = pids
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_takes_too_long_or_finds_no_time_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(PARTS, "parity", ("parity_part", 1, 1))  # less than JAX takes to load
    assert Runner(tmp_path, tmp_path, dry_run=True).run(["parity", "sizes"], seconds=1.5) == 1
    told = (tmp_path / "table.md").read_text()
    assert "| parity | | | cut off after 1 s |" in told
    assert "| sizes | | | not run: no time was left |" in told


def test_a_part_that_fails_costs_no_other(tmp_path, monkeypatch):
    for part in ("broken", "next"):
        monkeypatch.setitem(PARTS, part, ("no_such_module", 60, 60))
    assert Runner(tmp_path, tmp_path, dry_run=True).run(["broken", "next"], 300) == 1
    told = (tmp_path / "table.md").read_text()
    assert "| broken | | | failed with exit code 1" in told
    assert "| next | | | failed with exit code 1" in told


def test_the_table_names_the_card_and_sets_goals_beside_ratios():
    told = table([{"unit": "", "note": "", **each} for each in RESULTS])
    assert told.startswith("Measured on NVIDIA H100 80GB HBM3, driver 1.\n")
    assert "| five captions an image packed, against transformers | 6.00 | at least 5 |" in told
    assert "| MFU of training, batch 32 | 0.50 | at least 0.5 |" in told
    assert "| greedy, batch 8, against generate | not measured | at least 1.5 |" in told
    assert "NVIDIA" not in told.partition("\n")[2]


@pytest.mark.parametrize("words", [["--parts=nothing"], ["--minutes=0"]])
def test_wrong_commands(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--dry-run", *words])
    with pytest.raises(SystemExit) as raised:
        on_accelerator.main()
    assert raised.value.code == 2


def test_without_an_accelerator_it_says_so(tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command("--out", str(tmp_path / "out")), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "JAX sees no accelerator" in done.stderr
    assert not (tmp_path / "out").exists()
