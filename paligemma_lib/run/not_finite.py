"""Says which images of a batch have a loss or gradients that are not finite, and where they began.

raise ValueError(not_finite(prepared, state, batch, losses, batches, step))
"""

import functools
import json
from collections.abc import Mapping

import jax
import numpy as np

from paligemma_lib.batch import Batch
from paligemma_lib.data.batches import Batches
from paligemma_lib.model.first_not_finite import first_not_finite, place_of
from paligemma_lib.run.assembly import overflow_search_of
from paligemma_lib.run.prepare import Prepared
from paligemma_lib.runtime import processes
from paligemma_lib.sharding import batch_sharding, put_batch
from paligemma_lib.train import TrainState
from paligemma_lib.train.overflow import Overflow

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
    rows = zip(
        _rows_of_process(losses), batches.texts(step), _mine(losses), _mine(where), strict=True
    )
    images, told = {}, []
    for row, text, loss, number in rows:
        images[row] = text.image_id
        if not np.isfinite(loss):
            place = place_of(model, int(number))
            told.append(f"{text.image_id} (first in {place})" if place else str(text.image_id))
    found = _of_all(told)
    cause = f"Images of this batch whose loss is not finite: {', '.join(found)}"
    if not found:
        overflow = overflow_search_of(prepared.config, model, mesh)(state, batch)
        cause = _of_gradients(overflow, images)
    return (
        f"{prepared.config.max_skipped} steps in a row had a loss or gradients that are not "
        f"finite, so training stopped at step {step + 1}; a checkpoint is saved. {cause}. Lower "
        "optimizer.learning_rate, or set model.dtype to bfloat16 or float32"
    )


def _of_gradients(overflow: Overflow | None, images: Mapping[int, object]) -> str:
    """Says where gradients overflow, and for which images, of whose rows `images` has its own."""
    said = "All losses of this batch are finite"
    if overflow is None:
        return f"{said}, and so is each gradient; the sum of their squares is not"
    said += f". On the way back, gradients are first not finite in {overflow.place}"
    found = _of_all([str(images[row]) for row in overflow.rows if row in images])
    if overflow.is_complete:
        return f"{said}, those of {', '.join(found)}" if found else f"{said}, and of no image alone"
    return f"{said}, those of {', '.join([*found, 'images that were not looked for'])}"


def _of_all(told: list[str]) -> list[str]:
    """Returns the texts of all processes."""
    parts = processes.gather(json.dumps(told).encode())
    return [line for part in parts for line in json.loads(part)]


def _rows_of_process(of_batch: jax.Array) -> list[int]:
    """Returns which rows of the global batch this process has, in the order of its images."""
    rows = np.arange(len(of_batch))
    return [int(row) for shard in _shards(of_batch) for row in rows[shard.index]]


def _mine(of_batch: jax.Array) -> np.ndarray:
    """Returns the values of the rows of this process, in the order of its images."""
    return np.concatenate([np.asarray(shard.data) for shard in _shards(of_batch)])


def _shards(of_batch: jax.Array) -> list[jax.Shard]:
    # Sorted by their first row, this process's shards match the order of `image_ids`.
    return sorted(of_batch.addressable_shards, key=lambda shard: shard.index[0].start or 0)
