"""Kinds of faults that `fault_driver.py` puts into runs.

Each starts the run, does something to it, checks what it was promised, and says what it did, or ""
if it came to nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fault_runs import TIMEOUT, Broken, Run, cut, flip

from paligemma_lib.runtime.signals import ONE_PRESS

if TYPE_CHECKING:
    from fault_driver import Driver

PHASES = {  # how many of each are disturbed
    **{"captions": 1, "validation": 1, "checkpoint": 3, "batch": 4},
    **{"export": 1, "scores": 1},
}
INTERRUPTED, KILLED, TERMINATED = (128 + n for n in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM))


def kill(driver: Driver, run: Run) -> str:
    with driver.start(run) as started:
        if not (moment := driver.moment(started)):
            return ""
        number = driver.random.randrange(run.count)
        started.send(signal.SIGKILL, number)
        words = f"process {number} of 2 ended: SIGKILL" if run.count > 1 else ""
        started.expect(KILLED, words, or_over=True)
        return moment + (f", process {number}" if run.count > 1 else "")


def terminate(driver: Driver, run: Run) -> str:
    with driver.start(run) as started:
        if not (moment := driver.moment(started)):
            return ""
        started.process.send_signal(signal.SIGTERM)
        started.expect(TERMINATED, or_over=True)
        return moment


def interrupt(driver: Driver, run: Run) -> str:
    """Ctrl-C, once or twice."""
    with driver.start(run) as started:
        if not (moment := driver.moment(started)):
            return ""
        started.process.send_signal(signal.SIGINT)
        presses = driver.random.choice([1, 1, 2])
        if presses == 2:
            time.sleep(driver.random.uniform(ONE_PRESS + 0.1, 1.5))
            started.process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        started.expect(INTERRUPTED, or_over=True)
        seconds = time.monotonic() - begun
        # Also where other work keeps the machine busy, so that a whole run takes minutes.
        allowed = (
            max(30.0, 0.75 * driver.seconds) if presses == 1 else max(10.0, driver.seconds / 4)
        )
        if seconds > allowed:
            raise Broken(f"Ctrl-C {moment}: it ended after {seconds:.0f} s only")
        return f"{moment}, {presses} times"


def terminate_one(driver: Driver, run: Run) -> str:
    if run.count == 1:
        return ""
    with driver.start(run) as started:
        if not (moment := driver.moment(started)):
            return ""
        number = driver.random.randrange(run.count)
        started.send(signal.SIGTERM, number)
        started.expect(TERMINATED, or_over=True)
        return f"{moment}, process {number}"


def stop_one(driver: Driver, run: Run) -> str:
    """SIGSTOP: a process that stands still."""
    if run.count == 1:
        return ""
    with driver.start(run) as started:
        if not (moment := driver.moment(started, driver.random.choice([*PHASES]))):
            return ""
        number = driver.random.randrange(run.count)
        started.send(signal.SIGSTOP, number)
        silent = "is missing: no heartbeat for 10 seconds"
        words = rf"process {number} of 2.* ({silent}|hangs: another process succeeded)"
        started.expect(1, words, or_over=True)
        return f"{moment}, process {number}"


def damage_checkpoint(driver: Driver, run: Run) -> str:
    kept = run.checkpoints()
    if not kept:
        return ""
    files = [path for path in kept[-1].rglob("*") if path.is_file() and path.stat().st_size]
    matters = [max(files, key=lambda path: path.stat().st_size), kept[-1] / "run" / "metadata"]
    file = driver.random.choice([*matters, driver.random.choice(files)])
    how = driver.random.choice([flip, cut])
    how(file, driver.random.randrange(file.stat().st_size))
    told = f"{how.__name__} {file.relative_to(run.workdir / 'checkpoints')}"
    with driver.start(run) as started:
        goes_on = started.reached("batch-1")
        if len(kept) > 1 and file in matters:
            steps = [path.name for path in kept]
            words = (
                f"checkpoint of step {steps[-1]}: .* is damaged .* Resuming from step {steps[-2]}"
            )
            if not re.search(words, started.words()):
                raise Broken(f"{told}: it should have been told:\n{started.words()[-3000:]}")
        elif file in matters or (not goes_on and started.ended(TIMEOUT)):
            started.expect(1, "all checkpoints are damaged")
            shutil.rmtree(run.workdir / "checkpoints")
    return told


def damage_data(driver: Driver, run: Run) -> str:
    if "damaged" in run.kind:
        return ""
    file = run.shard()
    kept = file.with_name("kept")
    shutil.copy2(file, kept)
    how = driver.random.choice([flip, cut])
    place = driver.random.randrange(file.stat().st_size)
    how(file, place)
    with driver.start(run) as started:
        damaged = r"-train\.tfrecord.* (is damaged|damaged at byte|is truncated)"
        started.expect(1, rf"{damaged}|build (it|the data set) again")
    os.replace(kept, file)
    return f"{how.__name__} byte {place}"


def change_inputs(driver: Driver, run: Run) -> str:
    """Other data, another tokenizer or other software, while the run is stopped."""
    if not run.checkpoints() or "damaged" in run.kind:
        return ""
    what = driver.random.choice(["data", "tokenizer", "software"])
    if what == "software":
        with driver.start(run, software="9.9") as started:
            started.expect(1, r"software.jax: was '[\d.]+', is '9.9'")
        return what
    if what == "tokenizer":
        with driver.start(run, tokenizer="other") as started:
            started.expect(1, r"tokenizer: was '\w+', is '\w+'")
        return what
    other, kept = driver.other_data(), run.workdir / "kept"
    own = run.workdir / other.name
    os.rename(own, kept)
    shutil.copytree(other, own)
    with driver.start(run) as started:
        # What was built is compared with what it was built from before the run's record is.
        started.expect(1, r"/tfds-44/.* exists, but is not what would be built now from")
    shutil.rmtree(own)
    os.rename(kept, own)
    return what


def fill_disk(driver: Driver, run: Run) -> str:
    if not run.workdir.is_relative_to(driver.folder / "small"):
        return ""
    phase = driver.random.choice(["checkpoint", "export"])
    mark = f"{phase}-{driver.random.randint(1, PHASES[phase])}"
    leave = driver.random.randrange(1 << 20)  # less than either takes
    filler = run.workdir.parent / "filler"
    try:
        with driver.start(run, full=[mark, str(filler), leave]) as started:
            if not started.reached(mark):
                started.expect(0)
                return ""
            started.expect(
                1, "(OSError|paligemma finetune): .*([Nn]o space left|could not be written)"
            )
    finally:
        filler.unlink(missing_ok=True)
    return f"in {mark.replace('-', ' ')}, but for {leave >> 10} KiB"


def fail_reads(driver: Driver, run: Run) -> str:
    with driver.start(run, failing=0.1) as started:
        if not started.reached("batch-2"):
            return ""
        started.process.send_signal(signal.SIGTERM)
        started.expect(TERMINATED, "Input/output error.*; trying again for")
        return "a tenth of them"


def stall_a_read(driver: Driver, run: Run) -> str:
    with driver.start(run, stalling=3.0) as started:
        if not started.reached("batch-2"):
            return ""
        started.process.send_signal(signal.SIGTERM)
        started.expect(TERMINATED, r"still waiting for .*tfrecord.*, after [12] s")
        return "for 3 s"


KINDS: dict[str, Callable[[Driver, Run], str]] = {
    "kill": kill,
    "terminate": terminate,
    "terminate one": terminate_one,
    "interrupt": interrupt,
    "stop one": stop_one,
    "damage a checkpoint": damage_checkpoint,
    "damage the data": damage_data,
    "change inputs": change_inputs,
    "fill the disk": fill_disk,
    "fail reads": fail_reads,
    "stall a read": stall_a_read,
}
