"""Seconds from a new process to its first step, with an empty compilation cache and a full one."""

import os
import subprocess
import sys
import tempfile
import time

from accelerator.measuring import Part

_CHILD = "--child"


def child(dry_run: bool) -> None:
    """Makes one step and prints the seconds of compiling and running it."""
    from accelerator.real_models import model_of
    from accelerator.training_part import Training

    config = model_of("paligemma_3b", dry_run, dtype="bfloat16", remat="dots")
    training = Training(config, "bfloat16", 8, 5)
    start = time.perf_counter()
    float(training.run()["loss"])
    print(time.perf_counter() - start)


def main() -> None:
    if _CHILD in sys.argv:
        return child("--dry-run" in sys.argv)
    part = Part.of_command_line()
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        command = [sys.executable, "-m", "accelerator.compiling_part", _CHILD]
        command += ["--dry-run"] * part.dry_run
        for name in ("empty", "full"):
            start = time.perf_counter()
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                sys.exit(
                    f"the process with the {name} cache ended with exit code {done.returncode}"
                )
            whole = time.perf_counter() - start
            part.emit(f"{name} cache: first step", float(done.stdout.split()[-1]), "s")
            part.emit(f"{name} cache: whole process", whole, "s", "including making the parameters")


if __name__ == "__main__":
    main()
