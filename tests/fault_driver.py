"""Runs the main job under random faults, and compares what it leaves with undisturbed runs.

    python tests/fault_driver.py --faults 100 --seed 0

A line for each fault, then a table. The exit code is 1 if a run hung, ended with another exit code
or other words than promised, or left other parameters, losses or captions than an undisturbed one.
A run is the demo on a few images, started again and again until it gets through its faults.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fault_kinds import KINDS, PHASES
from fault_runs import ROOT, Broken, Run, Started, check_leftovers, compare, flip

TOLD = {"NaN": "; 1 steps were skipped", "damaged": r"\b1 damaged records were replaced"}
SMALL_DISK = 256 << 20  # bytes


class Driver:
    """Makes runs in a folder, and faults in them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.told: list[tuple[str, float]] = []  # each fault's kind, and seconds to the end
        self.undisturbed: dict[str, Path] = {}
        self.seconds = 60.0  # that an undisturbed run takes
        self._starts = 0
        self._kinds: list[str] = []  # of the next faults

    def start(self, run: Run, **faults) -> Started:
        self._starts += 1
        return Started(run, self.folder / f"start-{self._starts}.txt", **faults)

    def fresh(self, kind: str, where: Path | None = None) -> Run:
        """A run whose data are there."""
        workdir = Path(tempfile.mkdtemp(prefix="run-", dir=where or self.folder))
        if self.undisturbed:
            for made in self.undisturbed["one process"].glob("*-44"):
                shutil.copytree(made, workdir / made.name)
        run = Run(kind, workdir, count=2 if "two" in kind else 1)
        if "NaN" in kind:
            run.faults["nan"] = 5
        if "damaged" in kind:
            run.changes["data.on_corrupt_image"] = "replace"
            flip(run.shard(), 5000)
        return run

    def complete(self, run: Run) -> None:
        """Starts a run that nothing more happens to, and compares what it leaves."""
        if not run.over:
            begun = time.monotonic()
            with self.start(run) as started:
                for words in ("", *(told for name, told in TOLD.items() if name in run.kind)):
                    started.expect(0, words)
            self.seconds = time.monotonic() - begun
        check_leftovers(run.workdir)
        if run.kind not in self.undisturbed:
            self.undisturbed[run.kind] = run.workdir
            print(f"undisturbed, {run.kind}: {self.seconds:.1f} s", flush=True)
            return
        compare(run, self.undisturbed[run.kind])
        print(f"     {run.kind}: as undisturbed", flush=True)
        shutil.rmtree(run.workdir)

    def other_data(self) -> Path:
        """The folder of a data set of another seed, made once, whose name is the same."""
        run = Run("other data", self.folder / "other", changes={"seed": 1})
        if not run.workdir.exists():
            with self.start(run) as started:
                started.reached("batch-1")
        return run.workdir / "tfds-44"

    def moment(self, started: Started, phase: str = "") -> str:
        """Waits for a random moment, perhaps of a phase; what it is, or "" if the run is over."""
        phase = phase or self.random.choices(["", *PHASES], [3, *PHASES.values()])[0]
        if phase:
            number = self.random.randint(1, PHASES[phase])
            told = f"in {phase} {number}"
            started.reached(f"{phase}-{number}")
            time.sleep(self.random.uniform(0.0, 0.4))
        else:
            seconds = self.random.uniform(0.0, self.seconds / 2)
            told = f"after {seconds:.1f} s"
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.process.wait(seconds)
        if started.process.poll() is None and started.is_whole():
            return told
        started.expect(0)
        return ""

    def due(self) -> list[str]:
        """The kinds that come next."""
        return sorted(set(self._kinds))

    def suffer(self, run: Run, kinds: Sequence[str]) -> None:
        """Has a run suffer a fault, of each kind in turn as often as it is among `kinds`.

        It may come to nothing: the run is over, or has no checkpoint yet. Then that kind is due
        again, before the next round ends.
        """
        if len(self._kinds) < 2:  # a kind alone might wait for another one for ever
            self._kinds += self.random.sample(kinds, len(kinds))
        kind = self._kinds.pop(0)
        begun = time.monotonic()
        if not (told := KINDS[kind](self, run)) or run.over:
            self._kinds.append(kind)
        else:
            self.told.append((kind, time.monotonic() - begun))
            print(f"{len(self.told):>4} {run.kind}: {kind} {told}", flush=True)


OFTEN = {"kill": 8, "terminate": 6, "interrupt": 6, "damage a checkpoint": 5, "terminate one": 3}
RUNS = (
    *("one process", "two processes", "one process, NaN", "one process, damaged"),
    "two processes, NaN, damaged",
)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mounts a small file system in memory; False where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    allowed = subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def drive(
    folder: Path,
    faults: int,
    seed: int,
    runs: tuple[str, ...] = RUNS,
    often: Mapping[str, int] = OFTEN,
) -> list[str]:
    """Makes so many faults, of all kinds; returns what was not as promised."""
    # A shell lets what is in its background ignore Ctrl-C, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    driver, problems = Driver(folder, seed), []
    with small_disk(folder / "small") as has_small_disk:
        if not has_small_disk:
            print("not allowed to mount a small disk: none will be full", flush=True)
        seldom = 2 if often is OFTEN else 0
        kinds = [kind for kind in KINDS for _ in range(often.get(kind, seldom))]
        if not has_small_disk:
            kinds = [kind for kind in kinds if kind != "fill the disk"]
        for kind in dict.fromkeys(["one process", *runs]):
            driver.complete(driver.fresh(kind))
        number = 0
        while len(driver.told) < faults:
            if number > len(kinds) + faults:
                problems.append(f"{driver.due()} came to nothing in {number} runs")
                break
            kind = runs[number % len(runs)]
            run = driver.fresh(
                kind, folder / "small" if has_small_disk and number % 2 == 0 else None
            )
            number += 1
            try:
                for _ in range(driver.random.randint(6, 12)):
                    if len(driver.told) < faults and not run.over:
                        driver.suffer(run, kinds)
                driver.complete(run)
            except Broken as error:
                problems.append(f"{run.kind}: {error}")
                print(f"BROKEN {problems[-1]}", flush=True)
    for kind in KINDS:
        seconds = [each for name, each in driver.told if name == kind]
        if seconds:
            print(f"{kind:<20} {len(seconds):>4} times, at most {max(seconds):5.1f} s to the end")
    print(f"{len(driver.told)} faults, {number} runs, {len(problems)} broken promises")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, help="of faults; default: all")
    parser.add_argument("--folder", type=Path, help="to keep everything in; default: temporary")
    args = parser.parse_args()
    often = dict.fromkeys(args.kinds, 1) if args.kinds else OFTEN
    cache = ROOT / ".pytest_cache" / "xla"  # compiling takes most of the time
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    if args.folder:
        args.folder.mkdir(parents=True)
        return bool(drive(args.folder, args.faults, args.seed, often=often))
    with tempfile.TemporaryDirectory() as folder:
        return bool(drive(Path(folder), args.faults, args.seed, often=often))


if __name__ == "__main__":
    sys.exit(main())
