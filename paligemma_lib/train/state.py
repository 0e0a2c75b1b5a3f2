"""What training changes from step to step, and the stages in which parameters join.

state = init_state(config, params, optimizer, trainable="attention", mesh=mesh)
state = restage(state, optimizer, ["attention", "projector"])       # from here on these too
params = state.all_params()                                         # to decode, to save
state = abstract_state(abstract_params(config), optimizer, trainable="attention")  # shapes
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.sharding import replicated
from paligemma_lib.train.optimizer import Optimizer
from paligemma_lib.trainable import Parts, Trainable, merge, split, trained_rows

_FLOAT16_SCALE = 2.0**15


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of training; `trained` and `frozen` are those of `paligemma_lib.trainable`.

    Attributes:
      step: int32[], steps taken, those that were skipped included.
      trained: float32 parts by name.
      opt_state: the optimizer's state for each of these parts.
      frozen: parts by name, in the types in which they were given.
      loss_scale: float32[], what the loss is multiplied by before it is differentiated, so that
        float16 can hold the gradients (arXiv 1710.03740); 1 for other types.
      good_steps: int32[], steps since the scale changed.
      skipped: int32[], steps without effect, as their gradients were not finite.
      skipped_in_a_row: int32[], the last of them without a good one in between.
    """

    step: jax.Array
    trained: Parts
    opt_state: dict[str, tuple[Any, ...]]
    frozen: Parts
    loss_scale: jax.Array
    good_steps: jax.Array
    skipped: jax.Array
    skipped_in_a_row: jax.Array

    def all_params(self) -> dict[str, Any]:
        """Nested dict of all parameters, as models, decoding and `save_params` take it."""
        return merge(self.trained, self.frozen)


def init_state(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    optimizer: Optimizer,
    *,
    trainable: Trainable,
    mesh: Mesh,
) -> TrainState:
    """Starts training.

    Args:
      config: the model; float16 activations ask for a scaled loss.
      params: nested dict of arrays on the devices of `mesh`. They become part of the state without
        a copy, save those that train and are not float32.
      optimizer: as `make_optimizer` returns it.
      trainable: what trains, see `trainable.trained_rows`.
      mesh: as `sharding.make_mesh` returns it.

    Raises:
      ValueError: `trainable` selects nothing.
    """
    trained, frozen = split(params, trained_rows(params, trainable))
    # Float32 for what changes: in bfloat16, an update of 1/256 of a weight would be rounded away.
    trained = jax.tree.map(_trainable_copy, trained)
    scale = _FLOAT16_SCALE if config.dtype == "float16" else 1.0

    def scalar(value: float, dtype: Any) -> jax.Array:
        return jax.device_put(np.asarray(value, dtype), replicated(mesh))

    return TrainState(
        step=scalar(0, np.int32),
        trained=trained,
        opt_state={
            name: tuple(_fresh(optimizer, part) for part in parts)
            for name, parts in trained.items()
        },
        frozen=frozen,
        loss_scale=scalar(scale, np.float32),
        good_steps=scalar(0, np.int32),
        skipped=scalar(0, np.int32),
        skipped_in_a_row=scalar(0, np.int32),
    )


def abstract_state(
    params: dict[str, Any],
    optimizer: Optimizer,
    *,
    trainable: Trainable,
    frozen_dtype: str = "float32",
    mesh: Mesh | None = None,
) -> TrainState:
    """The state that `init_state` would make, as shapes, types and places: for checks and plans.

    Args:
      optimizer, trainable: as for `init_state`.
      params: nested dict of `jax.ShapeDtypeStruct`, which may have shardings.
      frozen_dtype: of parameters that do not train.
      mesh: as for `init_state`; None: places do not matter.

    Raises:
      ValueError: `trainable` selects nothing.
    """
    trained, frozen = split(params, trained_rows(params, trainable))
    trained = jax.tree.map(lambda leaf: leaf.update(dtype=np.float32), trained)
    frozen = jax.tree.map(lambda leaf: leaf.update(dtype=np.dtype(frozen_dtype)), frozen)
    everywhere = replicated(mesh) if mesh is not None else None

    def fresh(part: jax.ShapeDtypeStruct) -> Any:
        return jax.tree.map(
            lambda leaf: leaf.update(
                sharding=part.sharding if leaf.shape == part.shape else everywhere
            ),
            jax.eval_shape(optimizer.transform.init, part),
        )

    def scalar(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((), dtype, sharding=everywhere)

    return TrainState(
        step=scalar(np.int32),
        trained=trained,
        opt_state={name: tuple(map(fresh, parts)) for name, parts in trained.items()},
        frozen=frozen,
        loss_scale=scalar(np.float32),
        good_steps=scalar(np.int32),
        skipped=scalar(np.int32),
        skipped_in_a_row=scalar(np.int32),
    )


def restage(state: TrainState, optimizer: Optimizer, trainable: Trainable) -> TrainState:
    """From here on trains other parameters.

    What trained before and goes on keeps its optimizer state, what is new starts fresh, and what
    no longer trains loses it and stays float32.

    Args:
      state: the state, which is not to be used any more.
      optimizer: as `make_optimizer` returns it.
      trainable: what trains, see `trainable.trained_rows`.

    Raises:
      ValueError: `trainable` selects nothing.
    """
    params = state.all_params()
    trained, frozen = split(params, trained_rows(params, trainable))
    opt_states = {}
    for name, parts in trained.items():
        old_spans = _spans(state.frozen.get(name, ()), state.trained.get(name, ()))
        old = [*zip(old_spans, state.opt_state.get(name, ()), strict=True)]
        new_parts, new_states = [], []
        for span, part in zip(_spans(frozen.get(name, ()), parts), parts, strict=True):
            # A part is cut at most, never joined: it lies in one that trained, or in none.
            found = [
                _rows(opt_state, old_span, span)
                for old_span, opt_state in old
                if old_span.start <= span.start and span.stop <= old_span.stop
            ]
            new_parts.append(part if found else _trainable_copy(part))
            new_states.append(found[0] if found else _fresh(optimizer, new_parts[-1]))
        trained[name], opt_states[name] = tuple(new_parts), tuple(new_states)
    return dataclasses.replace(state, trained=trained, opt_state=opt_states, frozen=frozen)


def _spans(frozen: Sequence[jax.Array], trained: Sequence[jax.Array]) -> list[range]:
    """The rows that each trained part holds of the whole array."""
    ends = [*itertools.accumulate(part.shape[0] for part in (*frozen, *trained))]
    return [
        range(end - part.shape[0], end)
        for end, part in zip(ends[len(frozen) :], trained, strict=True)
    ]


def _rows(opt_state: Any, old: range, new: range) -> Any:
    """The optimizer's state for some rows of a part."""
    if old == new:
        return opt_state
    rows = slice(new.start - old.start, new.stop - old.start)
    return jax.tree.map(
        lambda leaf: leaf[rows] if leaf.shape[:1] == (len(old),) else leaf, opt_state
    )


def _trainable_copy(part: jax.Array) -> jax.Array:
    """In float32 and in memory of its own, which a step may give away."""
    return jnp.array(part, jnp.float32, copy=True)


def _fresh(optimizer: Optimizer, part: jax.Array) -> Any:
    """The optimizer's state for a part; what has its shape lies where it lies."""
    init = optimizer.transform.init
    everywhere = NamedSharding(cast(NamedSharding, part.sharding).mesh, PartitionSpec())
    shardings = jax.tree.map(
        lambda leaf: part.sharding if leaf.shape == part.shape else everywhere,
        jax.eval_shape(init, part),
    )
    return jax.jit(init, out_shardings=shardings)(part)
