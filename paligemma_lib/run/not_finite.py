"""Says which images of a batch have a loss that is not finite, and where in the model it began.

raise ValueError(not_finite(prepared, state, batch, losses, batches, step))
"""

import functools

import jax
import numpy as np

from paligemma_lib.batch import Batch
from paligemma_lib.data.batches import Batches
from paligemma_lib.model.first_not_finite import first_not_finite, place_of
from paligemma_lib.run.prepare import Prepared
from paligemma_lib.runtime import processes
from paligemma_lib.sharding import batch_sharding, put_batch
from paligemma_lib.train import TrainState

_READ = ("image", "text", "segment", "position")


def not_finite(
    prepared: Prepared,
    state: TrainState,
    batch: Batch,
    losses: jax.Array,
    batches: Batches,
    step: int,
) -> str:
    """Returns the error message for a run whose gradients stay not finite.

    Args:
      prepared: the run.
      state: its state.
      batch: the rows of this process of the last batch.
      losses: float32[B], loss of each example of the global batch.
      batches: where the batch is from; names its images.
      step: index of the batch's step, from 0.
    """
    model, mesh = prepared.model, prepared.mesh
    find = jax.jit(functools.partial(first_not_finite, model), out_shardings=batch_sharding(mesh))
    with jax.set_mesh(mesh):
        where = find(state.all_params(), **put_batch(mesh, {name: batch[name] for name in _READ}))
    told = []
    rows = zip(
        [each.image_id for each in batches.texts(step)], _mine(losses), _mine(where), strict=True
    )
    for image_id, loss, number in rows:
        if not np.isfinite(loss):
            place = place_of(model, int(number))
            told.append(f"{image_id} (first in {place})" if place else str(image_id))
    of_all = processes.gather("\n".join(told).encode())
    found = (
        ", ".join(name for part in of_all for name in part.decode().splitlines())
        or "none; only the gradients overflow"
    )
    return (
        f"{prepared.config.max_skipped} steps in a row had a loss or gradients that are not "
        f"finite, so training stopped at step {step + 1}; a checkpoint is saved. Images of this "
        f"batch whose loss is not finite: {found}. Lower optimizer.learning_rate, or set "
        "model.dtype to bfloat16 or float32"
    )


def _mine(of_batch: jax.Array) -> np.ndarray:
    """Returns the rows of this process, in the order of its images."""
    # Sorted by their first row, this process's shards match the order of `image_ids`.
    shards = sorted(of_batch.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])
