"""Says when so many minutes are over since the last checkpoint, in all processes alike.

clock = SaveClock(10.0, mesh)
if clock.is_due():                 # in each step, by all processes
    save(state)
    clock.restart()
"""

import time

import jax
from jax.sharding import Mesh

from paligemma_lib.runtime.agreement import Agreement


class SaveClock:
    """The minutes since the last checkpoint; 0 minutes are never over."""

    def __init__(self, minutes: float, mesh: Mesh) -> None:
        self._seconds, self._agreement = 60 * minutes, Agreement(mesh)
        self.restart()

    def restart(self) -> None:
        """Begins to count again."""
        self._last = time.monotonic()
        # The answer of several processes comes one call late: the first is of before the restart.
        self._ignored = jax.process_count() > 1

    def is_due(self) -> bool:
        """Returns whether the minutes are over in any process; all call it after each step."""
        if not self._seconds:
            return False
        due = bool(self._agreement.largest(time.monotonic() - self._last > self._seconds))
        due, self._ignored = due and not self._ignored, False
        return due
