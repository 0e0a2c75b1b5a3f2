"""Runs the parts one after the other, each in a process group that ends with its time.

code = Runner(Path("results"), golden, dry_run=False).run(["parity", "training"], seconds=480)
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerator.speed_table import table

PARTS = {  # part -> module, seconds that it may take on a card, in a dry run
    "parity": ("parity_part", 90, 150),
    "training": ("training_part", 150, 150),
    "training-peer": ("peer_part", 70, 150),
    "decoding": ("decoding_part", 100, 150),
    "decoding-peer": ("peer_part", 60, 150),
    "sizes": ("sizes_part", 150, 150),
    "small-card": ("small_card_part", 100, 150),
    "compiling": ("compiling_part", 90, 150),
}
_ROOT = Path(__file__).resolve().parents[2]


class Runner:
    """Runs parts and keeps what they find in a folder."""

    def __init__(self, out: Path, golden: Path, dry_run: bool) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._golden, self._dry_run = out, golden, dry_run
        self.results = out / "results.jsonl"
        self._asked = False  # to end, by a signal

    def run(self, parts: Sequence[str], seconds: float) -> int:
        """Runs the parts within so many seconds; returns the exit code."""
        self.results.unlink(missing_ok=True)
        deadline = time.monotonic() + seconds
        before = {each: signal.signal(each, self._ask) for each in (signal.SIGTERM, signal.SIGINT)}
        failed = 0
        try:
            for part in parts:
                failed += not self._run_part(part, deadline - time.monotonic())
        except KeyboardInterrupt:
            self._note("interrupted", "the rest was not run")
            failed += 1
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
            text = table(self._records())
            (self._out / "table.md").write_text(text, "utf-8")
            print(text)
        return 1 if failed else 0

    def _run_part(self, part: str, left: float) -> bool:
        """Whether it ended well; what it found before it did not is kept."""
        module, *limits = PARTS[part]
        limit = min(limits[self._dry_run], left)
        if limit < 1:
            self._note(part, "not run: no time was left")
            return False
        print(f"{part}: at most {limit:.0f} s", file=sys.stderr, flush=True)
        paths = [str(_ROOT / "benchmarks"), str(_ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        if self._dry_run:
            # What is tried out is that it runs: compiling takes most of the time.
            environment |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
        command = [sys.executable, "-m", f"accelerator.{module}", part]
        command += [str(self.results), str(self._golden), *["--dry-run"] * self._dry_run]
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        end = time.monotonic() + limit
        try:
            while (code := process.poll()) is None:
                if self._asked:
                    raise KeyboardInterrupt
                if time.monotonic() > end:
                    self._note(part, f"cut off after {limit:.0f} s")
                    return False
                time.sleep(0.1)
        finally:  # with whatever it has started, also when this program is to end
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code:
            self._note(part, f"failed with exit code {code}; see its output")
        return code == 0

    def _ask(self, number: int, frame: object) -> None:
        # An exception would come at any place, also while a process is started that nobody has got
        # hold of yet.
        self._asked = True

    def _note(self, part: str, text: str) -> None:
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": part, "note": text}) + "\n")

    def _records(self) -> list[dict[str, Any]]:
        if not self.results.is_file():
            return []
        lines = self.results.read_text("utf-8").splitlines()
        records = []
        for line in lines:
            with contextlib.suppress(ValueError):  # a process was killed while it wrote this one
                records.append(json.loads(line))
        return records
