"""Parameters that lie partly with other processes, brought to the first one to be saved.

params = gather_params(state.all_params())                  # all processes
if jax.process_index() == 0:
    save_params("captioner.npz", params)
"""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from paligemma_lib.checkpoint.placement import row_blocks


def gather_params(params: Any) -> Any:
    """Makes parameters of any sharding readable for process 0.

    They come a block at a time, so that devices and other processes hold no more than that.

    Args:
      params: nested dict of arrays. All processes call this, at the same place.

    Returns:
      The same, in process 0 with NumPy arrays in the place of what lies partly with others.
    """
    return jax.tree.map(_whole, params)


def _whole(array: Any) -> Any:
    sharding = getattr(array, "sharding", None)
    if sharding is None or array.is_fully_addressable or array.is_fully_replicated:
        return array
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    out = np.empty(array.shape, array.dtype) if jax.process_index() == 0 else None
    for block in row_blocks(array.shape, array.dtype.itemsize):
        rows = _rows(array, block.start, block.stop - block.start, everywhere)
        if out is not None:
            out[block] = rows
    return array if out is None else out


@functools.partial(jax.jit, static_argnums=(2, 3))
def _rows(array: jax.Array, first: int, count: int, sharding: NamedSharding) -> jax.Array:
    rows = jax.lax.dynamic_slice_in_dim(array, first, count, 0)
    return jax.lax.with_sharding_constraint(rows, sharding)
