"""Runs of the main job that faults happen to, for `fault_driver.py`."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
INJECTION = ROOT / "tests" / "fault_injection.py"
DEMO = ROOT / "examples" / "configs" / "demo.py"
EXPORT, METRICS = "nano_finetuned.params.f16.npz", "metrics.jsonl"
CHANGES = {  # to the demo: 27 steps on 36 images, 12 checkpoints, 6 validations
    **{"data.name": 44, "batch_size": 8, "microbatches": 1, "epochs": 6.0, "save_every": 0.5},
    **{"decode_batch_size": 4, "max_new_tokens": 12, "export_dtype": "float32"},
}
TOLERANCE = {1: 0.0, 2: 1e-6}  # of parameters, by the number of processes
TIMEOUT = 600.0  # seconds after which a run that should end hangs
SILENCE = 10.0  # seconds after which a process counts as missing


class Broken(Exception):
    """A promise was not kept."""


@dataclasses.dataclass
class Run:
    """A run of the main job: what it is compared with, where it lies, in how many processes."""

    kind: str
    workdir: Path
    count: int = 1
    faults: dict[str, object] = dataclasses.field(default_factory=dict)
    changes: dict[str, object] = dataclasses.field(default_factory=dict)
    over: bool = False

    def checkpoints(self) -> list[Path]:
        """The newest last."""
        folders = [p for p in (self.workdir / "checkpoints").glob("*") if p.name.isdigit()]
        return sorted(folders, key=lambda path: int(path.name))

    def shard(self) -> Path:
        """A file of training data."""
        return min(self.workdir.glob("tfds-*/**/*-train.tfrecord*"))


class Started:
    """A run in its processes; kills what is left of them at the end of the block."""

    def __init__(self, run: Run, said: Path, **faults) -> None:
        self.run, self.said = run, said
        self._pids: list[int] = []
        self.marks = said.with_suffix(".marks")
        self.marks.mkdir()
        faults = {"marks": str(self.marks), "silence": SILENCE, **run.faults, **faults}
        changes = {"workdir": run.workdir, **CHANGES, **run.changes}
        command = [str(INJECTION), f"--config={DEMO}", "--cpu"]
        command += [f"--config.{name}={value}" for name, value in changes.items()]
        if run.count > 1:
            command = ["-m", "paligemma_lib.runtime.launch", "--count", str(run.count), *command]
        environment = {
            **os.environ,
            "FAULTS": json.dumps(faults),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        with said.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command], env=environment, stdout=file, stderr=file
            )

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        for pid in {*self.pids(), self.process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.run.over = self.process.wait() == 0

    def pids(self) -> list[int]:
        """The processes of the run, in their order."""
        if self.run.count == 1:
            return [self.process.pid]
        with contextlib.suppress(OSError):
            file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            return [int(pid) for pid in file.read_text().split()]
        return []

    def is_whole(self) -> bool:
        """Whether none of the processes has ended."""
        self._pids = self.pids()
        return len(self._pids) == self.run.count

    def send(self, number: int, process: int) -> None:
        """Sends a signal to one that was there when the run was whole; it may have ended since."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pids[process], number)

    def reached(self, mark: str) -> bool:
        """Waits for a mark or the end; whether it was the mark."""
        deadline = time.monotonic() + TIMEOUT
        while self.process.poll() is None and time.monotonic() < deadline:
            if (self.marks / mark).exists():
                return True
            time.sleep(0.02)
        return (self.marks / mark).exists()

    def ended(self, timeout: float) -> int:
        """The exit code, as shells have it. Raises Broken if there is none in time."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            left = [number for number, pid in enumerate(self.pids()) if _runs(pid)]
            raise Broken(
                f"hangs: after {timeout:.0f} s processes {left} of {self.run.count} go on:\n"
                + self.words()[-3000:]
            ) from None
        return 128 - code if code < 0 else code

    def words(self) -> str:
        return self.said.read_text(errors="replace")

    def expect(self, code: int, words: str = "", or_over: bool = False) -> None:
        """Waits for the end. Raises Broken if it is not as promised, or that the run is over."""
        found = self.ended(TIMEOUT)
        if or_over and found == 0:
            return
        if found != code:
            raise Broken(f"exit code {found}, expected {code}:\n{self.words()[-3000:]}")
        if not re.search(words, self.words()):
            raise Broken(f"it should have said {words!r}:\n{self.words()[-3000:]}")


def compare(run: Run, undisturbed: Path) -> None:
    """Raises Broken if a run has left anything else."""
    tolerance = TOLERANCE[run.count]
    found, wanted = losses(run.workdir), losses(undisturbed)
    if found.keys() != wanted.keys():
        raise Broken(f"{run.kind}: recorded {sorted(found)}, and undisturbed {sorted(wanted)}")
    for name, value in wanted.items():
        if not np.isclose(found[name], value, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise Broken(f"{run.kind}: {name} is {found[name]}, and undisturbed {value}")
    for name in ("predictions_before.json", "predictions.json"):
        if (run.workdir / name).read_bytes() != (undisturbed / name).read_bytes():
            raise Broken(f"{run.kind}: other captions in {name}")
    with np.load(run.workdir / EXPORT) as found, np.load(undisturbed / EXPORT) as wanted:
        for name in wanted.files:
            gap = float(np.abs(found[name] - wanted[name]).max())
            if not gap <= tolerance:
                raise Broken(f"{run.kind}: {name} differs by {gap}")


def check_leftovers(workdir: Path) -> None:
    """Raises Broken if a killed process has left anything that nothing removes."""
    patterns = ("*.partial", "*orbax-checkpoint-tmp*", ".offsets-*.*")
    if left := [path for pattern in patterns for path in workdir.rglob(pattern)]:
        raise Broken(f"left behind: {', '.join(str(path.relative_to(workdir)) for path in left)}")


def losses(workdir: Path) -> dict[tuple[str, int], float]:
    """All that was recorded and does not tell of time. Raises Broken if anything is there twice."""
    found: dict[tuple[str, int], float] = {}
    for record in map(json.loads, (workdir / METRICS).read_text().splitlines()):
        for name in {"loss", "validation_loss", "skipped"} & record.keys():
            if (name, record["step"]) in found:
                raise Broken(f"{name} of step {record['step']} is recorded twice")
            value = record[name]
            found[name, record["step"]] = float("nan") if value is None else value
    return found


def flip(path: Path, place: int) -> None:
    """Flips a bit."""
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def cut(path: Path, place: int) -> None:
    """Cuts a file off."""
    path.write_bytes(path.read_bytes()[:place])


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "TZ"
    return False
