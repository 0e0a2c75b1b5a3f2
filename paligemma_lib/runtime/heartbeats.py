"""Signs of life that processes send each other, so that a missing one is named and not waited for.

    with Heartbeats() as heartbeats:
        work()                          # ends the program when another process falls silent
        heartbeats.missing()            # ["process 1 of 4 (on host-1, pid 817)"]
        heartbeats.announce_end(1, "a disk is full")               # ends the others too

Each process counts up a number at the coordinator that JAX runs in process 0, which looks whose
numbers stand still; the others look whether it answers. Threads do this, so neither compiling nor
waiting for data is taken for death. Who ends by an error leaves its last words there, which the
others repeat and follow.

The watch that JAX 0.10 has of its own takes 100 seconds, ends by SIGABRT with a stack trace of C++,
names a process by its number at most, and repeats nobody's reason; one that failed waits 300
seconds for the others first. Its recoverable tasks leave the others waiting for ever unless a
connection breaks, and `live_devices` sees a missing one only where all the others call it. When
process 0 is killed, JAX ends the others within a second, before anything here can speak.
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
from jax._src.distributed import global_state  # the one way to the coordinator, as Orbax uses it

SILENCE = 60.0  # seconds after which a process counts as missing

_BEAT = 2.0  # seconds
_FOLDER = "paligemma_lib/heartbeats/"
_FAREWELL = "paligemma_lib/farewell"


class Heartbeats:
    """Watches over the processes that `jax.distributed` has joined; a context manager."""

    def __init__(self, silence: float = SILENCE) -> None:
        self._silence = silence
        self._count = jax.process_count()
        self._client: Any = global_state.client
        self._me = f"{_FOLDER}{jax.process_index()}/{socket.gethostname()}, pid {os.getpid()}"
        now = time.monotonic()
        self._answered = self._looked = now  # when the coordinator did, when this process did
        self._heard: dict[str, tuple[str, float]] = {}  # each one's number, and since when
        self._over = threading.Event()
        self._speaking = threading.Lock()  # who has it says why this process ends, and ends it
        self._threads = [
            threading.Thread(target=target, name="heartbeats", daemon=True)
            for target in (self._beat, self._watch)
        ]

    def __enter__(self) -> Heartbeats:
        self._beat_once()  # so that one that dies right now is known by name
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_BEAT)  # one that asks while Python ends could crash it

    def missing(self) -> list[str]:
        """Who is silent now; looks for some seconds."""
        before = self._numbers()
        time.sleep(3 * _BEAT)
        after = self._numbers()
        if after is None or before is None:
            return [f"process 0 of {self._count}, which coordinates"]
        return [self._name(key) for key, number in after.items() if before.get(key) == number]

    def ending(self) -> None:
        """Has this thread alone end the process; if another one does so already, waits for it."""
        self._speaking.acquire()

    def announce_end(self, code: int, why: str) -> None:
        """Has the others end too, within seconds, with this exit code and these words.

        The first one counts. Process 0 stays until the others have heard: without its coordinator
        JAX would end them in its own way.
        """
        self._over.set()  # nobody else's words are followed any more
        words = f"{int(code) or 1} process {jax.process_index()} of {self._count} ended: {why}"
        telling = threading.Thread(target=self._leave, args=(words,), daemon=True)
        telling.start()  # the coordinator may stand still
        telling.join(_BEAT)
        if jax.process_index() == 0:
            time.sleep(2 * _BEAT)

    def _leave(self, words: str) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # another's are there, or nobody is
            self._client.key_value_set(_FAREWELL, words)

    def follow(self) -> None:
        """Ends, if another process has."""
        try:
            code, words = self._client.key_value_try_get(_FAREWELL).split(" ", 1)
        except jax.errors.JaxRuntimeError:
            return  # nobody has
        if words.startswith(f"process {jax.process_index()} "):
            return
        self.ending()
        self._say(f"{words}. Ending too")
        if jax.process_index() == 0:
            time.sleep(2 * _BEAT)  # until all have heard
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
            return  # `_silent` sees how long
        now = time.monotonic()
        if jax.process_index() == 0:
            for key, number in (self._numbers() or {}).items():
                if self._heard.get(key, ("", 0))[0] != number:
                    self._heard[key] = (number, now)
        self._answered = now

    def _silent(self) -> str:
        """Who has been silent for too long, if somebody has."""
        now = time.monotonic()
        asleep, self._looked = now - self._looked > self._silence / 2, now
        if asleep:  # this process itself did not run: hear the others first
            self._answered = now
            self._heard = {key: (number, now) for key, (number, _) in self._heard.copy().items()}
        if now - self._answered > self._silence:
            return f"process 0 of {self._count}, which coordinates,"
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
        self._speaking.acquire(timeout=self._silence)  # another may end, or stand still in it
        self._say(
            f"{who} is missing: no sign of life for {self._silence:.0f} seconds. It was killed, "
            "stands still, or cannot be reached; what it said last may tell. Ending too; the same "
            "command, in all processes, goes on"
        )
        self.announce_end(1, f"{who} is missing")
        os._exit(1)

    def _say(self, words: str) -> None:
        flushing = threading.Thread(target=sys.stdout.flush, daemon=True)  # a pipe may be full
        flushing.start()
        flushing.join(1)
        sys.stderr.write(f"process {jax.process_index()} of {self._count}: {words}\n")
        sys.stderr.flush()


def connected() -> list[str]:
    """Addresses of the others that have connected to this process, if it coordinates.

    They have no numbers yet: JAX lets nobody speak before all are there.
    """
    if global_state.service is None or global_state.coordinator_address is None:
        return []
    port = int(global_state.coordinator_address.rpartition(":")[2])
    sockets = [each for each in psutil.Process().net_connections("tcp") if each.raddr]
    own = {each.laddr.port for each in sockets}  # this process is connected to itself too
    others = [each.raddr for each in sockets if each.laddr.port == port]
    return sorted(each.ip.removeprefix("::ffff:") for each in others if each.port not in own)
