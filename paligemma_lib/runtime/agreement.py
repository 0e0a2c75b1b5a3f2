"""Lets all processes take the largest of their numbers in each step, without a wait.

agreement = Agreement(mesh)
for step in range(1000):
    state, metrics = train_step(state, batch)
    if agreement.largest(asked_to_end):      # the same in all processes
        break
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from paligemma_lib.sharding import batch_sharding, replicated


class Agreement:
    """The largest of the numbers that processes gave one call before.

    The devices compute it, and it is read one call later, so that no device waits for a host. A
    single process gets its own number at once.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._sharding = batch_sharding(mesh)
        self._max = jax.jit(jnp.max, out_shardings=replicated(mesh))
        self._before: jax.Array | None = None  # None: before the first call

    def largest(self, mine: int) -> int:
        """Returns the largest number of the call before; all processes call it equally often.

        Args:
          mine: the number of this process, 0 or more and below 2**31.
        """
        if jax.process_count() == 1:
            return mine
        # One number for each device of this process.
        numbers = np.full(len(self._sharding.addressable_devices), mine, np.int32)
        before, self._before = (
            self._before,
            self._max(jax.make_array_from_process_local_data(self._sharding, numbers)),
        )
        return 0 if before is None else int(before)
