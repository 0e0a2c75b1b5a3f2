"""Holds the jobs of an engine by the place they are at, and says which may go on.

places = Places(ahead=8)
places.is_wanted(job), places.entering(program), places.can_fill()
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

from paligemma_lib.runtime.bounds import whole
from paligemma_lib.serving.fair_queue import FairQueue
from paligemma_lib.serving.jobs import Job

if TYPE_CHECKING:
    from paligemma_lib.serving.jobs import Program


class Places:
    """The places of all jobs that are not over. It is not thread-safe: `Dispatch` holds a lock.

    Attributes:
      capacity: slots of each program that is compiled.
      aside: jobs whose program is not.
      queue: jobs that wait to be read.
      reading: jobs that are being read.
      read: jobs of each program that have been read, with what their slots are to begin with.
      written: jobs of each program that are in slots.
    """

    def __init__(self, ahead: int):
        """Takes the number of jobs that are read ahead for each program."""
        self._ahead = whole("Places: ahead", ahead, 1)
        self.capacity: dict[Program, int] = {}
        self.aside: list[Job] = []
        self.queue = FairQueue()
        self.reading: set[Job] = set()
        self.read: dict[Program, deque[tuple[Job, Any]]] = {}
        self.written: dict[Program, list[Job]] = {}

    def add_program(self, program: Program, slots: int) -> None:
        """Makes places for jobs of a program."""
        self.capacity[program] = slots
        self.read[program], self.written[program] = deque(), []

    def waiting(self) -> list[Job]:
        """Returns all jobs that are not in slots."""
        read = [job for jobs in self.read.values() for job, _ in jobs]
        return [*self.aside, *self.queue, *self.reading, *read]

    def unfinished(self) -> list[Job]:
        """Returns all jobs that are not over."""
        written = [job for jobs in self.written.values() for job in jobs]
        return [job for job in self.waiting() + written if not job.answer.over]

    def is_wanted(self, job: Job) -> bool:
        """Returns whether a job that waits should be read now."""
        reading = sum(each.program == job.program for each in self.reading)
        return reading + len(self.read[job.program]) < self._ahead

    def entering(self, program: Program) -> list[tuple[Job, Any]]:
        """Moves jobs that fit into free slots, and returns them with what they begin with."""
        read, written = self.read[program], self.written[program]
        found: list[tuple[Job, Any]] = []
        while read:
            job, prompt = read[0]
            if job.answer.over:
                read.popleft()
            elif self._fits(job):
                read.popleft()
                written.append(job)
                found.append((job, prompt))
            else:
                break
        return found

    def can_fill(self) -> bool:
        """Returns whether a free slot will have a job soon."""
        return any(
            self._fits(job) and not self.read[job.program]
            for job in itertools.chain(self.reading, self.queue)
        )

    def leave_aside(self, program: Program) -> list[Job]:
        """Removes the jobs that wait for a program, and returns them."""
        found = [job for job in self.aside if job.program == program]
        self.aside = [job for job in self.aside if job.program != program]
        return found

    def _fits(self, job: Job) -> bool:
        written = self.written[job.program]
        used = sum(each.slots for each in written)
        # Whose batch has failed is written alone, to see whether it is to blame.
        alone = job.attempts or any(each.attempts for each in written)
        return used + job.slots <= self.capacity[job.program] and not (alone and written)
