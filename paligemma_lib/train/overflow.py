"""Finds where gradients stop being finite on their way back, and for which examples.

    find = make_overflow_search(config, mesh=mesh, microbatches=4)
    found = find(state, batch)
    found.place, found.rows        # "layer 17 of 18 of the language model", (3,)

A loss may be finite where its gradients are not. In float16, which holds no more than 65,504, those
of activations are the first, as they are of a loss that is scaled.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from paligemma_lib.batch import Batch
from paligemma_lib.model.first_not_finite import layer_name
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.sharding import put_batch, replicated
from paligemma_lib.train.gradients import Arrays, make_gradients
from paligemma_lib.train.state import TrainState
from paligemma_lib.trainable import Parts

_MOST_TRIES = 64  # gradients of parts of the batch; each takes as long as a step

# Where gradients come by on their way back: those of tokens' embeddings are a sum of what both ends
# of the language model send, so they tell of neither, and come behind its layers.
_WAY_BACK = (
    "llm/final_norm/",
    "llm/layers/",
    "llm/embedder/",
    "img/head/",
    "img/Transformer/encoder_norm/",
    "img/Transformer/encoderblock/",
    "img/",
)


@dataclasses.dataclass(frozen=True)
class Overflow:
    """Where gradients are not finite.

    Attributes:
      place: the first on the way back among the places that train.
      rows: the examples of the global batch whose own gradients are not finite; none if only those
        of several together are not.
      is_complete: whether all examples were looked at.
    """

    place: str
    rows: tuple[int, ...]
    is_complete: bool


def make_overflow_search(
    config: PaliGemmaConfig, *, mesh: Mesh, **options: Any
) -> Callable[[TrainState, Batch], Overflow | None]:
    """Returns a function of the state behind a step that had no effect, and of the step's batch.

    It returns None if all gradients are finite. It computes gradients again, of the whole batch and
    of ever smaller parts of it, so it is for a run that ends. Its batch has the rows of this
    process; all processes must call it, and get the same result.

    Args:
      config: the model.
      mesh: as `sharding.make_mesh` returns it.
      options: those of `make_train_step` for the loss: microbatches, label_smoothing and so on.
    """
    gradients_of = make_gradients(config, mesh=mesh, **options)

    # Replicated, so that all processes read the same and search the same way.
    @jax.jit(out_shardings=replicated(mesh))
    def finite_of(
        trained: Parts, frozen: Parts, batch: Arrays, step: Any, scale: Any, first: Any, last: Any
    ) -> dict[str, jax.Array]:
        weight = batch["loss_weight"]
        row = jnp.arange(len(weight))[:, None]
        part = batch | {"loss_weight": jnp.where((first <= row) & (row < last), weight, 0)}
        supervised = jnp.sum(jnp.abs(weight), dtype=jnp.float32)
        _, gradients = gradients_of(trained, frozen, part, supervised, step, scale)
        return {name: _finite_rows(parts) for name, parts in gradients.items()}

    def find(state: TrainState, batch: Batch) -> Overflow | None:
        step = state.step - 1
        # The step has halved the scale, which is at least 1. If it was 1, 2 only finds more.
        scale = state.loss_scale * (2 if config.dtype == "float16" else 1)
        wanted = ("image", "text", "segment", "position", "loss_weight")
        with jax.set_mesh(mesh):
            arrays = put_batch(mesh, {name: batch[name] for name in wanted})
            rows = len(arrays["text"])

            def finite(first: int, last: int) -> dict[str, np.ndarray]:
                parts = state.trained, state.frozen, arrays, step, scale
                return {n: np.asarray(f) for n, f in finite_of(*parts, first, last).items()}

            place = _place(config, finite(0, rows))
            if place is None:
                return None
            # Depth first: where all examples overflow, some are named, however many there are.
            alone, open_, tries = [], [(0, rows)], 0
            while open_ and tries < _MOST_TRIES:
                first, last = open_.pop()
                middle = (first + last) // 2
                for half in (middle, last), (first, middle):
                    tries += 1
                    if all(each.all() for each in finite(*half).values()):
                        continue
                    if half[1] - half[0] == 1:
                        alone.append(half[0])
                    else:
                        open_.append(half)
        return Overflow(place, tuple(sorted(alone)), not open_)

    return find


def _finite_rows(parts: tuple[jax.Array, ...]) -> jax.Array:
    """Returns bool[N], whether each row along axis 0 of all parts is finite."""
    return jnp.concatenate(
        [jnp.all(jnp.isfinite(part.reshape(len(part), -1)), axis=1) for part in parts]
    )


def _place(config: PaliGemmaConfig, finite: dict[str, np.ndarray]) -> str | None:
    """Returns the first place on the way back whose gradients are not finite."""
    for prefix in _WAY_BACK:
        wrong = {
            name: rows
            for name, rows in finite.items()
            if name.startswith(prefix) and not rows.all()
        }
        if not wrong:
            continue
        depth = {
            "llm/layers/": config.language.depth,
            "img/Transformer/encoderblock/": config.vision.depth,
        }.get(prefix)
        if depth is None:
            return ", ".join(sorted(wrong))
        # Where only the top layers train, there are gradients of the last rows alone.
        last = max(depth - len(rows) + int(np.flatnonzero(~rows)[-1]) for rows in wrong.values())
        return layer_name(config, prefix.partition("/")[0], last)
    return None
