"""Notes SIGTERM and Ctrl-C while there is something to save: save, end, resume later.

with Termination(mesh) as termination:
    for step in range(1000):
        state, metrics = train_step(state, batch)
        if termination.agreed():            # all processes say so at the same step
            save(state)                     # to its end, within the block
            break
sys.exit(termination.exit_code)             # 130, 143, or 0
"""

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from paligemma_lib.runtime import signals
from paligemma_lib.runtime.agreement import Agreement
from paligemma_lib.runtime.retries import skip_delays


class Termination:
    """Notes the signals that ask to end, in a block, and lets all processes end after one step.

    JAX's own `reached_preemption_sync_point` takes SIGTERM away from Python, so that SIGTERM
    outside of the steps has no effect, and it does not work in a single process.

    If a signal comes after the last call of `agreed`, the end of the block passes it on to the
    previous handler. Once the processes have agreed, SIGTERM is ignored until the block ends; a
    second Ctrl-C raises KeyboardInterrupt. Between a signal and the agreement, retries do not wait:
    see `retries.skip_delays`. If a step fails for that reason, its error ends the block, and the
    signal is passed on. In other threads than the main one, Python cannot note signals.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._agreement = Agreement(mesh)
        self._asked = 0  # number of the signal that this process got; 0: none
        self._since = 0.0  # when it got it, by the monotonic clock
        self._agreed = 0  # number of the signal that all end for; 0: none yet
        self._before: dict[int, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> "Termination":
        if threading.current_thread() is threading.main_thread():
            for each in signals.SIGNALS:
                if signal.getsignal(each) is not signal.SIG_IGN:
                    self._before[each] = signal.signal(each, self._note)
        self._asked = self._asked or next(iter(signals.asked), 0)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        skip_delays(bool(self._asked and not self._agreed))
        if self._asked and not self._agreed:
            handler = self._before.get(self._asked)
            if callable(handler):
                handler(self._asked, None)
            else:
                signal.raise_signal(self._asked)

    @property
    def exit_code(self) -> int:
        """130 or 143, the same in all processes, once they have agreed; before, 0."""
        return signals.exit_code(self._agreed) if self._agreed else 0

    def agreed(self) -> bool:
        """Returns whether to end, the same in all processes; all must call it after each step."""
        if not self._agreed:
            self._agreed = self._agreement.largest(self._asked)
            if self._agreed:
                skip_delays(False)  # saving may wait for storage again
        return bool(self._agreed)

    def _note(self, number: int, _: object) -> None:
        now = time.monotonic()
        if number == signal.SIGINT == self._asked and now - self._since > signals.ONE_PRESS:
            raise KeyboardInterrupt  # the second
        if not self._agreed:  # while a checkpoint is saved, retries wait
            if number != self._asked:
                self._asked, self._since = number, now
            skip_delays(True)
