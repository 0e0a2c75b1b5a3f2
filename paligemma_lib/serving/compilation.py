"""Says which programs are compiled, which are to be, in what order, and which cannot be.

compilation = Compilation()
compilation.prepare([program_of(Greedy())])
compilation.hurry(program_of(Beam(4)))         # somebody waits for it
program = compilation.next()
compilation.finish(program)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paligemma_lib.serving.jobs import Program


class Compilation:
    """The programs of an engine. It is not thread-safe: `Dispatch` holds a lock.

    Attributes:
      problems: programs that cannot be compiled, and what clients are told. Another try would take
        as long and fail again, so there is none.
    """

    def __init__(self) -> None:
        self.problems: dict[Program, str] = {}
        self._prepared: list[Program] = []
        self._compiled: set[Program] = set()
        self._waiting: deque[Program] = deque()

    @property
    def is_prepared(self) -> bool:
        """Whether all programs of `prepare` are compiled; what clients add does not matter."""
        return self._compiled.issuperset(self._prepared)

    def prepare(self, programs: Iterable[Program]) -> None:
        """Adds programs that an engine is to have, in this order."""
        self._prepared = list(dict.fromkeys(programs))
        self._waiting.extend(self._prepared)

    def hurry(self, program: Program) -> None:
        """Puts a program that somebody waits for before all others."""
        if program in self._waiting:
            self._waiting.remove(program)
        self._waiting.appendleft(program)

    def next(self) -> Program | None:
        """Returns the program to compile now; None: there is none."""
        return self._waiting[0] if self._waiting else None

    def finish(self, program: Program, problem: str | None = None) -> None:
        """Notes that a program is compiled, or why it cannot be."""
        self._waiting.remove(program)
        if problem is None:
            self._compiled.add(program)
        else:
            self.problems[program] = problem
