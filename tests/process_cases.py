"""Scripts run in several processes."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PALIGEMMA = str(ROOT / "tests" / "paligemma_script.py")  # the command as a file, as launch wants it
ENVIRONMENT = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
}
TIMEOUT = 800  # seconds, of a machine that does other things besides


def launched(
    count: int, command: list[str], more: Mapping[str, str] = {}
) -> subprocess.CompletedProcess:
    """Runs a script in so many processes, with more variables in their environment."""
    if count > 1:
        command = ["-m", "paligemma_lib.runtime.launch", "--count", str(count), *command]
    return subprocess.run(
        [sys.executable, *command],
        env={**ENVIRONMENT, **more},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
