"""Runs functions in threads for as long as a program lives: a thread that dies is started again.

workers = Workers()
workers.add("reader 0", read_images, recover=give_its_job_back)
workers.start(every_second)
workers.close()
workers.join(20)
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

_PERIOD = 0.25  # seconds between two looks at the threads


@dataclasses.dataclass
class _Worker:
    name: str
    work: Callable[[], None]
    recover: Callable[[], None]
    thread: threading.Thread | None = None
    ended: bool = False

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.work()
        except BaseException:
            _log.exception("The thread %s has died", self.name)
        else:
            self.ended = True


class Workers:
    """Threads, and one more that watches them."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._closing = threading.Event()
        self._watching: threading.Thread | None = None
        self.restarts = 0  # threads that were started again

    def add(self, name: str, work: Callable[[], None], recover: Callable[[], None]) -> None:
        """Adds a function, which returns only when the program is to end.

        Args:
          name: name of the thread.
          work: the function.
          recover: called after the thread has died, before it is started again.
        """
        self._workers.append(_Worker(name, work, recover))

    def start(self, tick: Callable[[], None]) -> None:
        """Starts all threads; `tick` is called four times a second."""
        for worker in self._workers:
            worker.start()
        self._watching = threading.Thread(
            target=self._watch, args=(tick,), name="watch", daemon=True
        )
        self._watching.start()

    def close(self) -> None:
        """Lets dead threads rest."""
        self._closing.set()

    def join(self, seconds: float) -> None:
        """Waits for all threads to end, which others tell them to; not longer than this.

        A thread that is within XLA while Python ends would abort the process.
        """
        end = time.monotonic() + seconds
        # First the one that starts others.
        for thread in (self._watching, *(worker.thread for worker in self._workers)):
            if thread not in (None, threading.current_thread()):
                thread.join(max(0.0, end - time.monotonic()))

    def _watch(self, tick: Callable[[], None]) -> None:
        while not self._closing.wait(_PERIOD):
            try:
                tick()
                for worker in self._workers:
                    if not worker.ended and worker.thread and not worker.thread.is_alive():
                        worker.recover()
                        if self._closing.is_set():
                            return
                        self.restarts += 1
                        worker.start()
            except Exception:
                _log.exception("A thread could not be started again")
