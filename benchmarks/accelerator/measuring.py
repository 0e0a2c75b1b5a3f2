"""What every part measures with: the card, its own rates in this run, times, memory, results.

part = Part.of_command_line()
part.emit("captions/s, batch 8", 123.4, "captions/s")
seconds = timed(step, rounds=5)
"""

import argparse
import dataclasses
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from paligemma_lib.runtime.strict_json import dumps

GIB = 2**30
_PACKAGES = ("jax", "flax", "numpy", "torch", "transformers")
_ASK = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")


@dataclasses.dataclass(frozen=True)
class Part:
    """A part at work: where its results go, and whether it is tried out in small."""

    name: str
    results: Path
    golden: Path
    dry_run: bool

    @classmethod
    def of_command_line(cls) -> "Part":
        """As `running` starts it."""
        parser = argparse.ArgumentParser()
        parser.add_argument("name")
        parser.add_argument("results", type=Path)
        parser.add_argument("golden", type=Path)
        parser.add_argument("--dry-run", action="store_true")
        return cls(**vars(parser.parse_args()))

    def emit(self, what: str, value: float | str | None, unit: str = "", note: str = "") -> None:
        """Appends a result, at once."""
        record = {"part": self.name, "what": what, "value": value, "unit": unit, "note": note}
        with self.results.open("a", encoding="utf-8") as file:
            file.write(dumps(record) + "\n")
        print(f"  {what}: {value} {unit} {note}".rstrip(), file=sys.stderr, flush=True)


def nvidia() -> tuple[str, str, int] | None:
    """Name, driver and bytes of the first NVIDIA card, asked without any framework."""
    try:
        asked = subprocess.run(_ASK, capture_output=True, text=True, timeout=30, check=True)
        name, driver, memory = asked.stdout.splitlines()[0].rsplit(", ", 2)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
    return name, driver, int(memory.removesuffix(" MiB")) << 20


def machine() -> str:
    """Card, driver and versions, in a line."""
    found = nvidia()
    card = f"{found[0]}, driver {found[1]}" if found else f"CPU ({platform.machine()})"
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return f"{card}; Python {platform.python_version()}, {', '.join(versions)}"


def platform_of_jax() -> str:
    """ "gpu", "tpu" or "cpu", asked in another process: this one keeps its hands off the card."""
    program = "import jax; print(jax.devices()[0].platform)"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    return done.stdout.split()[-1] if done.returncode == 0 else "cpu"


def timed(run: Callable[[], Any], rounds: int, warm_up: int = 2) -> float:
    """Median seconds of a run, which returns JAX arrays; the first ones compile and don't count."""
    import jax

    seconds = []
    for number in range(warm_up + rounds):
        start = time.perf_counter()
        jax.block_until_ready(run())
        if number >= warm_up:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def product_rate(dry_run: bool, dtype: str = "bfloat16", side: int = 8192) -> float:
    """FLOP/s of a square product of random values, measured now."""
    import jax

    side = 256 if dry_run else side
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (side, side), dtype) for key in keys)
    product = jax.jit(lambda a, b: a @ b)
    return 2 * side**3 / timed(lambda: product(a, b), rounds=10)


def copy_rate(dry_run: bool) -> float:
    """Bytes/s read and written by copying an array within the device, measured now."""
    import jax
    import jax.numpy as jnp

    array = jnp.ones((1 << 20) if dry_run else (1 << 30), jnp.float32)
    copy = jax.jit(lambda x: x + 1)  # a bare copy could be elided
    return 2 * array.nbytes / timed(lambda: copy(array), rounds=10)


def peak_bytes() -> int | None:
    """The most that JAX has held on the device since the process began; None: not told."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def limit_bytes() -> int | None:
    """What JAX may hold on the device; None: not told."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device had too little memory, in JAX's words or in PyTorch's."""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
