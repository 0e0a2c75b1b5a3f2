"""Exchanges heartbeats between processes, so that a missing process is named and not waited for.

    with Heartbeats() as heartbeats:
        work()                          # ends the program when another process falls silent
        heartbeats.missing()            # ["process 1 of 4 (on host-1, pid 817)"]
        heartbeats.announce_end(1, "a disk is full")               # ends the others too

Each process increments a number at the coordinator, which JAX runs in process 0. Process 0 checks
that all numbers grow; the other processes check that the coordinator answers. Threads do this, so a
process that compiles or waits for data still counts as alive. A process that ends with an error
leaves its reason at the coordinator; the others print the reason and end too.

JAX 0.10's own detection takes 100 seconds, ends by SIGABRT with a C++ stack trace, names a process
by its number at most, and reports no reason; a process that failed first waits 300 seconds for the
others. With JAX's recoverable tasks the others wait for ever unless a connection breaks, and
`live_devices` detects a missing process only if all others call it. When process 0 is killed, JAX
ends the others within a second, before this module can report anything.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from typing import Any

import jax
import psutil
from jax._src.distributed import global_state  # Orbax reaches the coordinator the same way

from paligemma_lib.runtime.visible_text import told

SILENCE = 60.0  # seconds after which a process counts as missing

_BEAT = 2.0  # seconds between heartbeats
_FOLDER = "paligemma_lib/heartbeats/"
_FAREWELL = "paligemma_lib/farewell"


class Heartbeats:
    """Watches the processes that `jax.distributed` has joined, while its context is open."""

    def __init__(self, silence: float = SILENCE) -> None:
        self._silence = silence
        self._count = jax.process_count()
        self._client: Any = global_state.client
        self._me = f"{_FOLDER}{jax.process_index()}/{socket.gethostname()}, pid {os.getpid()}"
        now = time.monotonic()
        self._answered = self._looked = now  # last answer of the coordinator; last check
        self._heard: dict[str, tuple[str, float]] = {}  # key -> number, and since when
        self._over = threading.Event()
        self._speaking = threading.Lock()  # held by the thread that ends this process
        # Two threads: a call to the coordinator may hang in `_beat`, and `_watch` must notice that.
        self._threads = [
            threading.Thread(target=target, name="heartbeats", daemon=True)
            for target in (self._beat, self._watch)
        ]

    def __enter__(self) -> Heartbeats:
        self._beat_once()  # so that the coordinator knows this process's name
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_BEAT)  # a call to JAX while Python shuts down could crash

    def missing(self) -> list[str]:
        """Returns the processes that are silent now; observes them for some seconds."""
        # A living process increments its number about three times within this interval.
        before = self._numbers()
        time.sleep(3 * _BEAT)
        after = self._numbers()
        if after is None or before is None:
            return [f"process 0 of {self._count} (the coordinator)"]
        return [self._name(key) for key, number in after.items() if before.get(key) == number]

    def ending(self) -> None:
        """Lets only this thread end the process; blocks if another thread is already ending it."""
        self._speaking.acquire()

    def announce_end(self, code: int, why: str) -> None:
        """Makes the other processes end within seconds, with this exit code and this reason.

        If several processes announce an end, the first counts. Process 0 waits until the others
        have read it: without its coordinator, JAX would abort them.
        """
        self._over.set()  # the threads stop following other processes
        words = f"{int(code) or 1} process {jax.process_index()} of {self._count} ended: {why}"
        telling = threading.Thread(target=self._leave, args=(words,), daemon=True)
        telling.start()  # in a thread, as the coordinator may not answer
        telling.join(_BEAT)
        if jax.process_index() == 0:
            time.sleep(2 * _BEAT)

    def _leave(self, words: str) -> None:
        # Fails if another process has set its reason first, or if no coordinator answers.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(_FAREWELL, words)

    def follow(self) -> None:
        """Ends this process if another process has announced its end."""
        try:
            code, words = self._client.key_value_try_get(_FAREWELL).split(" ", 1)
        except jax.errors.JaxRuntimeError:
            return  # none has, so the key does not exist; or the coordinator does not answer
        if words.startswith(f"process {jax.process_index()} "):
            return
        self.ending()
        self._say(f"{words}. Ending too")
        if jax.process_index() == 0:
            time.sleep(2 * _BEAT)  # each process looks once per beat: by then all have read it
        os._exit(int(code))

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            self._beat_once()
            self.follow()

    def _watch(self) -> None:
        while not self._over.wait(_BEAT):
            if who := self._silent():
                self._end(who)

    def _beat_once(self) -> None:
        try:
            self._client.key_value_increment(self._me, 1)
        except jax.errors.JaxRuntimeError:
            return  # `_silent` measures how long this lasts
        now = time.monotonic()
        if jax.process_index() == 0:
            for key, number in (self._numbers() or {}).items():
                if self._heard.get(key, ("", 0))[0] != number:
                    self._heard[key] = (number, now)
        self._answered = now

    def _silent(self) -> str:
        """Returns the name of a process that has been silent for too long, or an empty string."""
        now = time.monotonic()
        # This runs every _BEAT seconds. A long gap means that this process itself was stopped, for
        # example by SIGSTOP; old times then say nothing, so the others get the full time again.
        asleep, self._looked = now - self._looked > self._silence / 2, now
        if asleep:
            self._answered = now
            # A copy, made in one step: the other thread may add keys during the iteration.
            self._heard = {key: (number, now) for key, (number, _) in self._heard.copy().items()}
        if now - self._answered > self._silence:
            return f"process 0 of {self._count} (the coordinator)"
        silent = [
            key for key, (_, since) in self._heard.copy().items() if now - since > self._silence
        ]
        return self._name(silent[0]) if silent else ""

    def _numbers(self) -> dict[str, str] | None:
        try:
            return dict(self._client.key_value_dir_get(_FOLDER))
        except jax.errors.JaxRuntimeError:
            return None

    def _name(self, key: str) -> str:
        number, where = key.removeprefix(_FOLDER).split("/", 1)
        return f"process {number} of {self._count} (on {where})"

    def _end(self, who: str) -> None:
        self._speaking.acquire(timeout=self._silence)  # the holder may hang
        self._say(
            f"{who} is missing: no heartbeat for {self._silence:.0f} seconds. It was killed, "
            "hangs, or cannot be reached; see the end of its output. Ending too; to continue, run "
            "the same command again in all processes"
        )
        self.announce_end(1, f"{who} is missing")
        os._exit(1)

    def _say(self, words: str) -> None:
        flushing = threading.Thread(target=sys.stdout.flush, daemon=True)  # a full pipe blocks
        flushing.start()
        flushing.join(1)
        sys.stderr.write(f"process {jax.process_index()} of {self._count}: {told(words)}\n")
        sys.stderr.flush()


def connected() -> list[str]:
    """Returns the addresses of the processes that have connected to this one, if it coordinates.

    Their process numbers are not known: JAX passes no messages before all processes are connected.
    """
    if global_state.service is None or global_state.coordinator_address is None:
        return []
    port = int(global_state.coordinator_address.rpartition(":")[2])
    sockets = [each for each in psutil.Process().net_connections("tcp") if each.raddr]
    own = {each.laddr.port for each in sockets}  # this process is its own client too
    others = [each.raddr for each in sockets if each.laddr.port == port]
    return sorted(each.ip.removeprefix("::ffff:") for each in others if each.port not in own)
