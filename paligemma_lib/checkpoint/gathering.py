"""Gathers parameters that are sharded over several processes to process 0, to be saved there.

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
    """Makes parameters of any sharding readable in process 0.

    Blocks of rows are gathered one at a time, so devices and other processes need extra memory for
    one block only. All processes must call this function, at the same point of the program.

    Args:
      params: nested dict of arrays.

    Returns:
      The same nested dict. In process 0, NumPy arrays replace arrays that have shards in other
      processes; in other processes, all arrays are returned as they are.
    """
    return jax.tree.map(_whole, params)


def _whole(array: Any) -> Any:
    sharding = getattr(array, "sharding", None)
    if sharding is None or array.is_fully_addressable or array.is_fully_replicated:
        return array
    # Every process must run `_rows`, whose all-gather waits for all of them. Only process 0 copies
    # the replicated rows to its host.
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
