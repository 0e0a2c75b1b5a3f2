"""SIGTERM, as schedulers send it before they take a machine away: save, end, go on later.

exit_on_sigterm()
prepare()                                   # ends at once
with Termination(mesh) as termination:
    for step in range(1000):
        state, metrics = train_step(state, batch)
        if termination.agreed():            # all processes say so at the same step
            save(state)
            break
"""

import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from paligemma_lib.runtime.retries import skip_delays
from paligemma_lib.sharding import batch_sharding, replicated

EXIT_CODE = 128 + signal.SIGTERM  # after SIGTERM, as shells have it

_early: list[int] = []  # SIGTERM while `exit_on_sigterm` held


def exit_on_sigterm() -> None:
    """Makes SIGTERM end the process at once, with `EXIT_CODE`, while there is nothing to save.

    Python drops an exception that comes up in a destructor or in a callback of the garbage
    collector, so the process may live on; the next `Termination` then ends it.
    """

    def leave(number: int, _: object) -> None:
        _early.append(number)
        skip_delays(True)
        sys.exit(EXIT_CODE)

    signal.signal(signal.SIGTERM, leave)


class Termination:
    """Notes SIGTERM in a block; the processes agree on when to end it.

    In each step the devices add up who was asked to end, and the sum is read a step later, so that
    none of them waits for a host. (JAX's own, `reached_preemption_sync_point`, takes SIGTERM away
    from Python, so that what is no step does not end by it, and is of no use to one process.) A
    SIGTERM that came after the last of the calls is passed on, at the end of the
    block, to whatever handled it before; once they have agreed, it is ignored from there on.
    Until then nothing waits for storage that fails: see `retries.skip_delays`. If a step fails of
    it, the block ends by that error, and the SIGTERM is passed on.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._sharding = batch_sharding(mesh)
        self._count = jax.jit(jnp.sum, out_shardings=replicated(mesh))
        self._asked = self._told = False
        self._counted: jax.Array | None = None  # in the step before

    def __enter__(self) -> "Termination":
        self._before = signal.signal(signal.SIGTERM, self._note)
        self._asked = self._asked or bool(_early)
        return self

    def __exit__(self, *_: object) -> None:
        # Having agreed to end, it is not to be cut off while it saves.
        signal.signal(signal.SIGTERM, signal.SIG_IGN if self._told else self._before)
        skip_delays(False)
        if self._asked and not self._told:
            signal.raise_signal(signal.SIGTERM)

    def agreed(self) -> bool:
        """Whether a process has been asked to end; all call this after each of their steps."""
        if not self._told:
            self._told = self._count_asked()
            if self._told:
                skip_delays(False)  # what is saved now may take its time
        return self._told

    def _count_asked(self) -> bool:
        if jax.process_count() == 1:
            return self._asked
        mine = np.full(len(self._sharding.addressable_devices), self._asked, np.int32)
        before = self._counted
        self._counted = self._count(jax.make_array_from_process_local_data(self._sharding, mine))
        return before is not None and int(before) > 0

    def _note(self, *_: object) -> None:
        self._asked = True
        skip_delays(True)
