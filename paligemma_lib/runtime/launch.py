"""Starts a script in several processes on one machine, to test what runs on many machines.

    python -m paligemma_lib.runtime.launch --count 2 examples/finetune.py --config.epochs=1

The processes meet on the loopback interface; process k uses the k-th GPU, if there are GPUs. Their
output is passed through unchanged. SIGTERM, Ctrl-C and SIGHUP are passed on to all of them. If one
fails, the launcher names it, gives the others twenty seconds to end, and returns its exit code. If
one ends successfully, the others have a minute, as `processes.joined` makes them end together. JAX
has no launcher; mpirun and srun, where installed, start processes that JAX detects.
"""

import argparse
import contextlib
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

_GRACE = 20.0  # seconds for the others to end by themselves after one has failed
_PARTING = 60.0  # seconds for the others to end after one has ended successfully
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PAUSE = 0.1  # seconds between checks of the processes


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher with command-line arguments; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, required=True, help="number of processes, at least 1")
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the script")
    args = parser.parse_args(argv)
    if args.count < 1:
        parser.error(f"--count {args.count}: expected at least 1")
    if not os.path.isfile(args.script):
        parser.error(f"{args.script} is not a file")
    return run([sys.executable, args.script, *args.arguments], args.count)


def run(command: Sequence[str], count: int) -> int:
    """Runs a command in `count` processes; options after its arguments tell each where to meet.

    Args:
      command: program and its arguments. It must accept the options of `processes.OPTIONS`.
      count: number of processes.

    Returns:
      0 if all processes ended successfully; else the exit code of the first that failed, or 128
      plus the number of the signal that ended it; 1 if one never ended.
    """
    meeting = [f"--coordinator=127.0.0.1:{_free_port()}", f"--processes={count}"]
    with _signals_passed_on() as (started, received):
        for process in range(count):
            started.append(
                subprocess.Popen(
                    [*command, *meeting, f"--process={process}"],
                    # The environment comes last: a JAX_LOCAL_DEVICE_IDS set by the user wins.
                    env={"JAX_LOCAL_DEVICE_IDS": str(process), **os.environ},
                    start_new_session=True,  # so that Ctrl-C reaches each only through `pass_on`
                )
            )
            for number in list(received):
                _send(started[-1:], number)
        return _wait(started)


def run_one(command: Sequence[str]) -> int:
    """Runs a command to its end and returns its exit code, as shells report it.

    SIGTERM, Ctrl-C and SIGHUP are passed on to it, so that it can save before it ends. (Where
    Python's `subprocess.run` is interrupted, it kills the command a quarter of a second later.)
    """
    with _signals_passed_on() as (started, received):
        started.append(subprocess.Popen(command, start_new_session=True))
        for number in list(received):  # before there was a process to pass them on to
            _send(started, number)
        code = started[0].wait()
        if code == 0 and received:  # it was over already; its caller was asked to end all the same
            return 128 + received[0]
        return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _signals_passed_on() -> Iterator[tuple[list["subprocess.Popen[bytes]"], list[int]]]:
    """Yields a list for processes that get the signals of this one, and those it has received.

    The processes are killed at the end. A signal that is ignored stays ignored, as SIGHUP under
    nohup; SIGHUP is passed on as SIGTERM, so that processes save.
    """
    started: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        number = signal.SIGTERM if number == signal.SIGHUP else number
        received.append(number)
        _send(started, number)

    before = {
        each: signal.signal(each, pass_on)
        for each in _PASSED_ON
        if signal.getsignal(each) is not signal.SIG_IGN
    }
    wakeup = signal.set_wakeup_fd(-1)  # a second Ctrl-C is for the processes to end at once
    try:
        yield started, received
    finally:
        _send(started, signal.SIGKILL)
        signal.set_wakeup_fd(wakeup)
        for each, handler in before.items():
            signal.signal(each, handler)


def _wait(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits for all processes; if one fails or hangs, ends the others. Returns the exit code."""
    deadline = math.inf
    while True:
        codes = [process.poll() for process in started]
        failed = [code for code in codes if code]
        if failed or time.monotonic() > deadline:
            break
        if None not in codes:
            return 0
        if 0 in codes:
            deadline = min(deadline, time.monotonic() + _PARTING)
        time.sleep(_PAUSE)
    for number, code in enumerate(codes):
        if code:
            how = f"ended: exit code {code}" if code > 0 else f"ended: {signal.Signals(-code).name}"
        elif code is None and not failed:
            how = f"hangs: another process succeeded {_PARTING:.0f} seconds ago. Ending it too"
        else:
            continue
        sys.stderr.write(f"process {number} of {len(codes)} {how}\n")  # one write
    deadline = time.monotonic() + (_GRACE if failed else 0)
    while any(process.poll() is None for process in started) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    _send(started, signal.SIGKILL)
    for process in started:
        process.wait()
    if not failed:
        return 1
    # Popen reports a signal as its negative number: -9 for SIGKILL becomes 137, as in shells.
    return failed[0] if failed[0] > 0 else 128 - failed[0]


def _send(started: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in started:
        if process.poll() is None:
            process.send_signal(number)


def _free_port() -> int:
    """Returns a free port below those that systems assign to outgoing connections.

    No connection can therefore take it before it is used.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise OSError("none of 100 ports from 20000 to 32000 of 127.0.0.1 is free")


if __name__ == "__main__":
    sys.exit(main())
