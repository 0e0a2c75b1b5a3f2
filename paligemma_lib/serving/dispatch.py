"""Decides which job is read and which is written next; it knows no model.

    dispatch = Dispatch(Bounds(max_waiting=256, ...), ahead=8)
    dispatch.put(job)
    job = dispatch.next_to_read()               # a thread that reads images, and their prompts
    dispatch.has_read(job, prompt)
    entering = dispatch.next_round()            # the thread that writes captions
    dispatch.end(job, "the image is damaged", "request")

A job passes through the places of `Places`: aside, while its program is compiled; the queue;
reading; read; written, in a slot; and it is over. One lock guards them all. Nobody holds it while
reading, writing or compiling.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from paligemma_lib.serving.admission import Bounds
from paligemma_lib.serving.answers import Answer, Fault, Stage, Unavailable
from paligemma_lib.serving.compilation import Compilation
from paligemma_lib.serving.jobs import Job
from paligemma_lib.serving.places import Places

if TYPE_CHECKING:
    from paligemma_lib.serving.jobs import Program

MOST_ATTEMPTS = 2  # batches that may fail with a job, before it is given up

Entering = dict["Program", list[tuple[Job, Any]]]


class Dispatch:
    """All jobs that are not over. Any thread may call any method."""

    def __init__(self, bounds: Bounds, ahead: int):
        """Takes what may wait, and how many jobs are read ahead for each program."""
        self._bounds = bounds
        self._places = Places(ahead)
        self._changed = threading.Condition()
        self._compilation = Compilation()
        self._loaded = self._closed = False
        self._refusal: str | None = None

    # For clients.

    def put(self, job: Job) -> None:
        """Adds a job, or ends it at once if its program cannot be compiled.

        Raises:
          Busy: there are too many jobs, or too many bytes of images.
          Unavailable: no more jobs are taken.
        """
        with self._changed:
            if self._refusal is not None:
                raise Unavailable(self._refusal)
            if (problem := self._compilation.problems.get(job.program)) is not None:
                self.end(job, problem, "server")
                return
            self._bounds.check(job, self._places.waiting(), self._places.unfinished())
            if job.program in self._places.capacity:
                self._places.queue.append(job)
            else:
                self._places.aside.append(job)
                self._compilation.hurry(job.program)
            self._changed.notify_all()

    def stage(self, job: Job) -> tuple[Stage, int]:
        """Returns what a job waits for, and how many jobs come first while it is "waiting"."""
        with self._changed:
            if job.answer.over:
                return "over", 0
            if job in self._places.aside:
                return "compiling" if self._loaded else "loading", 0
            ahead = self._places.queue.ahead_of(job)
            return ("writing", 0) if ahead is None else ("waiting", ahead)

    def end(self, job: Job, problem: str, fault: Fault) -> None:
        """Ends a job without a caption, wherever it is; one that is over stays as it is."""
        with self._changed:
            # One that is being read or written is dropped when that is done for the moment.
            if job in self._places.aside:
                self._places.aside.remove(job)
            self._places.queue.discard(job)
            job.show(Answer(job.answer.texts, problem=problem, fault=fault))
            self._changed.notify_all()

    def unfinished(self) -> list[Job]:
        """Returns all jobs that are not over."""
        with self._changed:
            return self._places.unfinished()

    def counts(self) -> tuple[int, int]:
        """Returns how many jobs are waiting, and how many are being written."""
        with self._changed:
            written = self._places.written.values()
            return len(self._places.waiting()), sum(map(len, written))

    # For the thread that loads and compiles.

    def prepare(self, programs: Iterable[Program]) -> None:
        """Adds programs to compile, in this order; once."""
        with self._changed:
            self._compilation.prepare(programs)
            self._changed.notify_all()

    def next_to_compile(self) -> Program | None:
        """Waits for a program to compile; the model is loaded then. None: closed."""
        with self._changed:
            self._loaded = True
            self._changed.wait_for(lambda: self._compilation.next() or self._closed)
            return None if self._closed else self._compilation.next()

    def compiled(self, program: Program, slots: int) -> None:
        """Notes that a program is compiled, and how many slots it has."""
        with self._changed:
            self._places.add_program(program, slots)
            self._compilation.finish(program)
            for job in self._places.leave_aside(program):
                self._places.queue.append(job)
            self._changed.notify_all()

    def cannot_compile(self, program: Program, problem: str) -> None:
        """Ends all jobs that wait for a program, and all that come, with this message."""
        with self._changed:
            self._compilation.finish(program, problem)
            for job in self._places.leave_aside(program):
                self.end(job, problem, "server")

    def refuse(self, why: str) -> None:
        """Takes no more jobs from now on."""
        with self._changed:
            self._refusal = why

    def is_compiled(self, program: Program) -> bool:
        """Returns whether jobs with this program need not wait for compilation."""
        with self._changed:
            return program in self._places.capacity

    def is_prepared(self) -> bool:
        """Returns whether the model is loaded and all programs of `prepare` are compiled."""
        with self._changed:
            return self._loaded and self._compilation.is_prepared

    def program_problems(self) -> dict[Program, str]:
        """Returns programs that cannot be compiled, and what clients are told."""
        with self._changed:
            return dict(self._compilation.problems)

    # For threads that read images.

    def next_to_read(self) -> Job | None:
        """Waits for a job whose program needs more images soon, and returns it; None: closed."""
        with self._changed:
            found: list[Job] = []

            def take() -> bool:
                job = self._places.queue.take(self._places.is_wanted)
                found.extend([job] if job is not None else [])
                return bool(found) or self._closed

            self._changed.wait_for(take)
            if not found:
                return None
            (job,) = found
            job.begun = time.monotonic()
            self._places.reading.add(job)
            return job

    def has_read(self, job: Job, prompt: Any) -> None:
        """Notes that a job may enter a slot."""
        with self._changed:
            if job in self._places.reading:  # else it was given to another thread meanwhile
                self._places.reading.remove(job)
                if not job.answer.over:
                    self._places.read[job.program].append((job, prompt))
            self._changed.notify_all()

    # For the thread that writes captions.

    def next_round(self, patience: float, pause: float) -> Entering | None:
        """Waits for jobs to write, and returns those that are to enter slots now; None: closed.

        A token of all slots takes hardly longer than one of a few. So while images are being read
        for slots that are free, it waits for them, but not longer than `patience`, in seconds. If
        captions are being written, it waits only as long as one more image is read every `pause`
        seconds: one that takes long does not hold up the others. A job with which a batch has
        failed is written alone, to see whether it is to blame.
        """
        with self._changed:
            entering: Entering = {}
            is_writing = any(self._places.written.values())

            def find() -> bool:
                """Returns whether there are more jobs than before."""
                found = {each: self._places.entering(each) for each in self._places.capacity}
                for program, jobs in found.items():
                    entering.setdefault(program, []).extend(jobs)
                return any(found.values()) or self._closed

            self._changed.wait_for(lambda: find() or is_writing)
            self._changed.notify_all()  # readers may read further ahead
            end = time.monotonic() + patience
            while not self._closed and self._places.can_fill():
                left = end - time.monotonic()
                if not self._changed.wait_for(
                    lambda: find() or not self._places.can_fill(),
                    min(left, pause) if is_writing else left,
                ):
                    break
            return None if self._closed else entering

    def left(self, job: Job) -> None:
        """Notes that a job has left its slots."""
        with self._changed:
            self._places.written[job.program].remove(job)
            self._changed.notify_all()

    def retry(self, jobs: Iterable[Job], problem: str) -> None:
        """Puts jobs back whose batch has failed; one that has failed too often ends."""
        with self._changed:
            for job in jobs:
                self._places.reading.discard(job)
                job.attempts += 1
                if job.attempts >= MOST_ATTEMPTS:
                    self.end(job, problem, "server")
                elif not job.answer.over:
                    self._places.queue.push_front(job)
            self._changed.notify_all()

    def retry_written(self, program: Program, problem: str) -> None:
        """Does so with all jobs that are in slots of a program."""
        with self._changed:
            if program in self._places.written:  # else it is compiled only just now
                jobs, self._places.written[program] = self._places.written[program], []
                self.retry(jobs, problem)

    def close(self) -> None:
        """Ends all threads once they have finished what they are doing, and all jobs."""
        with self._changed:
            self._closed = True
            self._refusal = self._refusal or "The engine is closed."
            for job in self.unfinished():
                self.end(job, "The engine was closed.", "cancelled")
            self._changed.notify_all()
