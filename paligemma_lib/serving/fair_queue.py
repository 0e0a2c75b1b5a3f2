"""Queues jobs of many clients, who take turns: nobody waits for all jobs of somebody else.

queue = FairQueue()
queue.append(job)                       # behind other jobs of job.client
job = queue.take(lambda job: True)      # the first one of the client whose turn it is
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from paligemma_lib.serving.jobs import Job


class FairQueue:
    """A queue with a line for each client. It is not thread-safe: `Dispatch` holds a lock."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Job]] = OrderedDict()  # whose turn it is comes first

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Job]:
        return itertools.chain.from_iterable(self._lines.values())

    def append(self, job: Job) -> None:
        """Adds a job behind all jobs of its client."""
        self._lines.setdefault(job.client, deque()).append(job)

    def push_front(self, job: Job) -> None:
        """Adds a job that has been taken before: it is the next one."""
        self._lines.setdefault(job.client, deque()).appendleft(job)
        self._lines.move_to_end(job.client, last=False)

    def take(self, fits: Callable[[Job], bool]) -> Job | None:
        """Removes and returns the next job that fits; its client is last in turn then."""
        for client, line in self._lines.items():
            job = next(filter(fits, line), None)
            if job is not None:
                line.remove(job)
                self._lines.move_to_end(client)
                if not line:
                    del self._lines[client]
                return job
        return None

    def discard(self, job: Job) -> bool:
        """Removes a job; returns whether it was there."""
        line = self._lines.get(job.client, deque())
        if job not in line:
            return False
        line.remove(job)
        if not line:
            del self._lines[job.client]
        return True

    def ahead_of(self, job: Job) -> int | None:
        """Returns how many jobs come first, if all clients take turns; None: it is not here."""
        line = self._lines.get(job.client, deque())
        if job not in line:
            return None
        place = line.index(job)
        clients = list(self._lines)
        first = clients[: clients.index(job.client)]
        others = (
            min(len(self._lines[each]), place + (each in first))
            for each in clients
            if each != job.client
        )
        return place + sum(others)
