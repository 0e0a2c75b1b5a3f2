"""Joins several processes that run one program, and exchanges data between them.

    with joined("10.0.0.1:8476", processes=4, process=0):    # or joined(): as the cluster says
        with main_process_first():
            prepare(files)                                   # once; the others find them
        texts = gather(b"of this process")                   # of all, in their order

Every process runs the same script with the same arguments. Call `joined` before JAX touches a
device. In a single process without a cluster, nothing here waits or communicates. On a TPU pod, and
under SLURM, Open MPI or Kubernetes with its `kubernetes` package, JAX finds the processes.
`python -m paligemma_lib.runtime.launch` starts several processes on one machine.
"""

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather, sync_global_devices

from paligemma_lib.runtime.heartbeats import Heartbeats, connected
from paligemma_lib.runtime.visible_text import told

OPTIONS: Mapping[str, tuple[type, str]] = {  # script options: the arguments of `joined`
    "coordinator": (str, "HOST:PORT of process 0, where several processes meet"),
    "processes": (int, "number of processes"),
    "process": (int, "index of this process, from 0"),
}

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_REMINDER = 10.0  # seconds until a message says what is waited for
_BROKEN = re.compile("Gloo|UNAVAILABLE|DEADLINE_EXCEEDED|[Cc]onnection")  # to other processes
_ENDING = (signal.SIGINT, signal.SIGTERM)
_ALONE = (  # JAX's messages if this process runs alone
    "coordinator_address should be defined",  # JAX found no cluster
    "must be called before any JAX calls",  # a notebook or a test has used JAX already
)


@contextlib.contextmanager
def joined(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    timeout: float = 300.0,
) -> Iterator[None]:
    """Runs a block together with the other processes; its end waits for all of them.

    A process that leaves the block with an error reports it and ends, and so do the others: in JAX
    it would wait for them while they wait for it. If a process is missing, the others name it and
    end; see `heartbeats`.

    Args:
      coordinator: HOST:PORT where process 0 listens; a loopback HOST makes it listen there only.
        If all three are None, JAX detects the cluster; without one this process runs alone.
      processes: number of processes.
      process: index of this process, from 0.
      timeout: seconds to wait for the other processes; after it, this one ends with exit code 1.

    Raises:
      ValueError: the arguments do not fit together.
      ConnectionError: process 0 cannot listen at HOST:PORT.
    """
    mine = _join(coordinator, processes, process, timeout)
    if not jax.distributed.is_initialized():
        yield
        return
    if jax.process_count() > 2 and jax.default_backend() == "cpu":
        # With programs from JAX 0.10's cache, Gloo aborts because message sizes do not match.
        jax.config.update("jax_enable_compilation_cache", False)
    with Heartbeats() as heartbeats:
        try:
            # Connects all processes now. On CPUs the first message times out after 30 seconds, and
            # later its receiver may still be downloading a checkpoint.
            sync_global_devices("the beginning")
            yield
            sync_global_devices("the end")
            if mine:
                jax.distributed.shutdown()  # waits for all; at exit JAX would do it unwatched
        except BaseException as error:
            _end(error, heartbeats)


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Runs the block in process 0 first, then in the other processes, which find its results."""
    if jax.process_index() > 0:
        sync_global_devices("the first is done")
    try:
        yield
    finally:  # also after an error in process 0: the others must not wait on
        if jax.process_index() == 0 and jax.process_count() > 1:
            sync_global_devices("the first is done")


def gather(data: bytes) -> list[bytes]:
    """Returns the data of all processes, in their order. All processes must call it together."""
    if jax.process_count() == 1:
        return [data]
    sizes = gather_rows(np.array([len(data)], np.int32))
    # Padded to a power of two: JAX compiles once for each size, and so there are few sizes.
    padded = np.zeros(1 << int(max(sizes)).bit_length(), np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    rows = gather_rows(padded[None])
    return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def gather_rows(array: np.ndarray) -> np.ndarray:
    """Concatenates the arrays of all processes, of one shape, along axis 0 in process order."""
    return array if jax.process_count() == 1 else process_allgather(array, tiled=True)


def _join(
    coordinator: str | None, processes: int | None, process: int | None, timeout: float
) -> bool:
    """Initializes `jax.distributed`; returns False if alone, or if it was initialized before."""
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    if coordinator is None and processes is None and process is None:
        if _is_notebook_machine():
            return False
        try:
            with _watched("the other processes of the cluster", timeout):
                jax.distributed.initialize(initialization_timeout=2 * round(timeout))
        except (ValueError, RuntimeError) as error:
            if not any(reason in str(error) for reason in _ALONE):
                raise
            return False
    else:
        if coordinator is None or processes is None or process is None:
            missing = ", ".join(name for name, value in given.items() if value is None)
            raise ValueError(f"several processes need {', '.join(given)}: {missing} is missing")
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"coordinator={coordinator!r}, expected HOST:PORT")
        if not 0 <= process < processes:
            raise ValueError(
                f"process={process} of processes={processes}, expected 0 to {processes - 1}"
            )
        if process == 0:
            _check_free(host, int(port))
        with _watched(
            f"{processes} processes at {coordinator} (this is process {process})", timeout
        ):
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                cluster_detection_method="deactivate",
                coordinator_bind_address=coordinator if host in _LOOPBACK else None,
                initialization_timeout=2 * round(timeout),
            )
    return True


def _check_free(host: str, port: int) -> None:
    """Raises ConnectionError if process 0 cannot listen, where JAX 0.10 may segfault instead."""
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    interface = host.strip("[]") if host in _LOOPBACK else ""
    try:
        with socket.create_server((interface, port), family=family):
            pass
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"process 0 cannot listen at {host}:{port} ({error}): use a free port of its machine"
        ) from error


def _is_notebook_machine() -> bool:
    """Returns whether this is a single machine that JAX takes for a cluster, as on Kaggle."""
    workers = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    if workers:
        return "," not in workers and "MEGASCALE_COORDINATOR_ADDRESS" not in os.environ
    return "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" not in os.environ


@contextlib.contextmanager
def _watched(what: str, timeout: float) -> Iterator[None]:
    """Reports what is waited for. JAX's own timeout would abort with a C++ stack trace."""

    def remind() -> None:
        _tell(f"waiting for {what}")

    def give_up() -> None:
        there = connected()
        come = f". Of the others, only these have connected: {', '.join(there)}" if there else ""
        _tell(
            f"timed out after {timeout:.0f} seconds of waiting for {what}. Start all of them at "
            "about the same time, with the same address. It must be an address of process 0's "
            f"machine that the others reach without a firewall or proxy, with a free port{come}"
        )
        os._exit(1)

    timers = [threading.Timer(_REMINDER, remind), threading.Timer(timeout, give_up)]
    # JAX waits in C++, where no Python handler runs, and takes SIGTERM for its preemption service.
    handlers = {each: signal.signal(each, signal.SIG_DFL) for each in _ENDING}
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for timer in timers:
            timer.cancel()


def _end(error: BaseException, heartbeats: Heartbeats) -> None:
    """Ends this process as Python would, and the others with it, without waiting for them."""
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)  # it is ending already
    me = f"process {jax.process_index()} of {jax.process_count()}"
    code: Any = None
    if isinstance(error, SystemExit):
        code = error.code or 0
    elif isinstance(error, KeyboardInterrupt):
        code = 128 + signal.SIGINT
    elif isinstance(error, (ValueError, OSError)):  # user or connection error: no traceback
        code = f"{type(error).__name__}: {error}"
    broken = _BROKEN.search(str(error))
    if code is None or broken:
        heartbeats.follow()  # ends here if another process caused the error
    missing = heartbeats.missing() if broken else []  # follows a reason that arrives meanwhile
    heartbeats.ending()
    if code is None:
        traceback.print_exception(error)
        code = 1
    for other in missing:
        _tell(f"{me}: {other} is missing")
    asked = isinstance(error, (SystemExit, KeyboardInterrupt))
    why = f"exit code {code}" if asked else f"{type(error).__name__}: {error}"
    if not isinstance(code, int):
        _tell(f"{me}: {code}")
        code = 1
    sys.stdout.flush()
    heartbeats.announce_end(code, why)
    os._exit(code)


def _tell(line: str) -> None:
    """Prints a line in one write, as other processes may write to the same terminal."""
    print(f"{told(line)}\n", end="", file=sys.stderr, flush=True)
