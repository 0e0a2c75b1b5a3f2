"""Handles SIGTERM, which schedulers send before they take a machine away: save, end, resume later.

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

EXIT_CODE = 128 + signal.SIGTERM  # 143, as shells report it

_early: list[int] = []  # SIGTERMs that the handler of `exit_on_sigterm` has received


def exit_on_sigterm() -> None:
    """Makes SIGTERM end the process at once with `EXIT_CODE`, while there is nothing to save.

    Python ignores an exception that is raised in a destructor or in a callback of the garbage
    collector. The process then continues, and the next `Termination` ends it.
    """

    def leave(number: int, _: object) -> None:
        _early.append(number)
        skip_delays(True)
        sys.exit(EXIT_CODE)

    signal.signal(signal.SIGTERM, leave)


class Termination:
    """Records SIGTERM in a block, and lets all processes agree on the step after which to end it.

    In each step the devices sum up how many were asked to end. The sum is read one step later, so
    that no device waits for a host. JAX's own `reached_preemption_sync_point` takes SIGTERM away
    from Python, so that SIGTERM outside of the steps has no effect, and it does not work in a
    single process.

    If SIGTERM comes after the last call of `agreed`, the end of the block passes it on to the
    previous handler. Once the processes have agreed, SIGTERM is ignored, also after the block.
    Between SIGTERM and the agreement, retries do not wait: see `retries.skip_delays`. If a step
    fails for that reason, its error ends the block, and SIGTERM is passed on.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._sharding = batch_sharding(mesh)
        self._count = jax.jit(jnp.sum, out_shardings=replicated(mesh))
        self._asked = self._told = False
        self._counted: jax.Array | None = None  # of the previous step; None before the first

    def __enter__(self) -> "Termination":
        self._before = signal.signal(signal.SIGTERM, self._note)
        self._asked = self._asked or bool(_early)
        return self

    def __exit__(self, *_: object) -> None:
        # After the agreement the caller saves a checkpoint, which another SIGTERM must not cut off.
        signal.signal(signal.SIGTERM, signal.SIG_IGN if self._told else self._before)
        skip_delays(False)
        if self._asked and not self._told:
            signal.raise_signal(signal.SIGTERM)

    def agreed(self) -> bool:
        """Returns whether to end, the same in all processes; all must call it after each step."""
        if not self._told:
            self._told = self._count_asked()
            if self._told:
                skip_delays(False)  # saving may wait for storage again
        return self._told

    def _count_asked(self) -> bool:
        if jax.process_count() == 1:
            return self._asked
        # One number for each device of this process. All processes read the same sum, that of the
        # previous step, so all of them agree after the same step.
        mine = np.full(len(self._sharding.addressable_devices), self._asked, np.int32)
        before = self._counted
        self._counted = self._count(jax.make_array_from_process_local_data(self._sharding, mine))
        return before is not None and int(before) > 0

    def _note(self, *_: object) -> None:
        self._asked = True
        skip_delays(True)
