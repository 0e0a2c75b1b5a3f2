"""Compiles a job in a separate process and returns its memory, FLOPs and messages.

    compiled = compile_job(job)                 # one to three minutes, about 1.5 GB of memory
    if not compiled.fits:
        print(compiled.problem)

The process is separate since libtpu needs JAX restricted to the CPU, locks a file, and may end the
process.
"""

import contextlib
import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from paligemma_lib.planning import hlo
from paligemma_lib.planning.collectives import Collective, read_collectives
from paligemma_lib.planning.flops import matmul_flops
from paligemma_lib.planning.program import (
    loss_iterations,
    resident_bytes,
    trace_decoding,
    trace_training,
)
from paligemma_lib.planning.slices import Slices, check_libtpu, position
from paligemma_lib.planning.traffic import hbm_bytes
from paligemma_lib.planning.work import Job, Training
from paligemma_lib.runtime.sizes import gib
from paligemma_lib.sharding import make_mesh

_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",  # the plan is of the program that will run
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server here
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # libtpu wants some value; the topology decides
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_PROGRAM = "import sys; from paligemma_lib.planning.compiling import main; main(*sys.argv[1:])"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"
_USED = (  # the two messages of libtpu for too little memory
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm"),
    re.compile(rf"temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Result of compiling a job; bytes and FLOPs are per device.

    Attributes:
      fits: whether the job fits into memory; only then it was compiled to the end.
      problem: why it does not fit, or "".
      arguments: bytes of parameters, state and batch. For a job that does not fit: bytes of
        parameters and state if these alone exceed the limit, else 0.
      peak: peak bytes of memory, arguments included. For a job that does not fit: the bytes that it
        needs, or 0 where the compiler does not say. On a CPU, whose compiler reports no peak: the
        sum of arguments and temporaries.
      limit: bytes that a program may use; 0 where no limit is known.
      flops: FLOPs of the matrix products, see `flops.matmul_flops`.
      model_flops: the same without what `remat` recomputes. (The loss computes logits twice in
        either case.)
      hbm_bytes: bytes read from and written to main memory, see `traffic.hbm_bytes`.
      collectives: messages among the devices.
      devices: number of devices.
      seconds: time of compiling.
      compiler_bytes: peak resident memory of the process that compiled.
    """

    fits: bool
    problem: str = ""
    arguments: int = 0
    peak: int = 0
    limit: int = 0
    flops: float = 0.0
    model_flops: float = 0.0
    hbm_bytes: float = 0.0
    collectives: tuple[Collective, ...] = ()
    devices: int = 0
    seconds: float = 0.0
    compiler_bytes: int = 0


def compile_job(job: Job) -> Compiled:
    """Compiles a job in another process and returns the result.

    Raises:
      ModuleNotFoundError: libtpu is not installed.
      ValueError: the topology does not exist, or the job is not valid on it.
      RuntimeError: the compiler failed for another reason than memory.
    """
    slices = Slices.named(job.topology, job.slices)
    environment = os.environ | _ENVIRONMENT
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    if slices.chip is None:
        given = os.environ.get("XLA_FLAGS", "")  # of flags that come twice, the last one counts
        environment["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count={slices.size}"
    else:
        check_libtpu()
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "job.json", Path(folder) / "compiled.json"
        asked.write_text(json.dumps(job.to_json()), "utf-8")
        ended = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(asked), str(told)],
            env=environment,
            capture_output=True,
            text=True,
        )
        if not told.is_file():
            raise RuntimeError(
                f"compiling for {job.topology} failed with exit code {ended.returncode}: "
                f"{ended.stderr[-2000:]}"
            )
        answer = json.loads(told.read_text("utf-8"))
    if "error" in answer:
        raise ValueError(answer["error"])
    answer["collectives"] = tuple(Collective(**each) for each in answer["collectives"])
    return Compiled(**answer)


def main(asked: str, told: str) -> None:
    """Compiles the job of the file `asked` and writes the result to `told`, both in JSON."""
    job = Job.from_json(json.loads(Path(asked).read_text("utf-8")))
    try:
        answer = dataclasses.asdict(_compile(job))
    except ValueError as error:
        answer = {"error": str(error)}
    Path(told).write_text(json.dumps(answer), "utf-8")


def _compile(job: Job) -> Compiled:
    slices = Slices.named(job.topology, job.slices)
    work = job.work
    fsdp = work.config.fsdp if isinstance(work, Training) else 0
    mesh = make_mesh(fsdp or None, slices.devices())
    limit = slices.chip.usable if slices.chip else 0
    resident = resident_bytes(job.model, work, mesh)
    if limit and resident > limit:  # the compiler would take minutes and much memory to refuse it
        what = "parameters and optimizer" if isinstance(work, Training) else "parameters"
        return Compiled(
            False,
            f"needs {_short(resident, limit)}, for {what} alone",
            arguments=resident,
            peak=resident,
            limit=limit,
            devices=mesh.size,
        )
    if isinstance(work, Training):
        programs: Sequence[Any] = [trace_training(job.model, work, mesh)]
        plain = dataclasses.replace(job.model, remat="none")
        wanted: Sequence[Any] = [trace_training(plain, work, mesh)]
        turns = loss_iterations(work, mesh.size)
    else:
        programs = wanted = trace_decoding(job.model, work, mesh)
        turns = work.config.max_new_tokens - 1
    # `wanted` is the same program without recomputation. A jaxpr is of all devices together.
    flops, model_flops = (
        sum(matmul_flops(traced.jaxpr.jaxpr, turns) for traced in each) / mesh.size
        for each in (programs, wanted)
    )
    found = Compiled(True, limit=limit, flops=flops, model_flops=model_flops, devices=mesh.size)
    positions = [position(device) for device in mesh.devices.flat]
    started = time.perf_counter()
    for traced in programs:
        try:
            with jax.set_mesh(mesh) if isinstance(work, Training) else contextlib.nullcontext():
                executable = traced.lower().compile()
        except jax.errors.JaxRuntimeError as error:
            return dataclasses.replace(
                found, fits=False, **_refused(str(error), limit),
                seconds=time.perf_counter() - started, compiler_bytes=_resident(),
            )  # fmt: skip
        memory = executable.memory_analysis()
        peak = memory.peak_memory_in_bytes
        if slices.chip is None:
            peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        # The programs of decoding run one after the other: memory is that of the largest, traffic
        # and messages add up.
        program = hlo.parse(executable.as_text())
        found = dataclasses.replace(
            found,
            arguments=max(found.arguments, memory.argument_size_in_bytes),
            peak=max(found.peak, peak),
            hbm_bytes=found.hbm_bytes + hbm_bytes(program, turns),
            collectives=(
                *found.collectives, *read_collectives(program, slices, positions, turns)
            ),
        )  # fmt: skip
    return dataclasses.replace(
        found, seconds=time.perf_counter() - started, compiler_bytes=_resident()
    )


def _refused(message: str, limit: int) -> dict[str, Any]:
    """Returns fields of `Compiled` where memory is short; raises RuntimeError for other errors."""
    used = next(filter(None, (pattern.search(message) for pattern in _USED)), None)
    if not used and "RESOURCE_EXHAUSTED" not in message:
        raise RuntimeError(message[:2000])
    if not used:
        return {"problem": message.splitlines()[0][:300]}
    peak, limit = (int(float(used[k]) * _UNITS[used[k + 1]]) for k in (1, 3))
    return {"peak": peak, "limit": limit, "problem": f"needs {_short(peak, limit)}"}


def _short(needed: int, limit: int) -> str:
    return f"{gib(needed)}, {gib(needed - limit)} more than the {gib(limit, 2)} of a device"


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux gives KiB
