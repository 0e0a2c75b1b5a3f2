"""Makes the state of training, and changes which parameters train from stage to stage.

state = init_state(config, params, optimizer, trainable="attention", mesh=mesh)
state = restage(state, optimizer, ["attention", "projector"])       # from here on these too
params = state.all_params()                                         # to decode, to save
state = abstract_state(abstract_params(config), optimizer, trainable="attention")  # shapes
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.quantized import is_quantized, stored_as
from paligemma_lib.sharding import replicated
from paligemma_lib.train.averaging import average_of
from paligemma_lib.train.loss_scale import first_scale
from paligemma_lib.train.optimizer import Optimizer
from paligemma_lib.trainable import Parts, Trainable, merge, split, trained_rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of training, with parameters as `paligemma_lib.trainable` splits them.

    Attributes:
      step: int32[], number of steps, including skipped ones.
      trained: parts of trained parameters by name, float32.
      opt_state: optimizer state of each of these parts.
      frozen: parts of frozen parameters by name, in the dtypes in which they were given, or
        quantised.
      loss_scale: float32[], factor of the loss before it is differentiated, so that gradients do
        not underflow float16 (arXiv 1710.03740); 1 for other dtypes.
      good_steps: int32[], successive good steps since the loss scale last changed.
      skipped: int32[], number of steps without effect because loss or gradients were not finite.
      skipped_in_a_row: int32[], number of skipped steps since the last good one.
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
        """Returns the nested dict of all parameters, for the model, decoding and `save_params`."""
        return merge(self.trained, self.frozen)

    def averaged_params(self) -> dict[str, Any]:
        """Returns the same with the averages of what trains, where the optimizer keeps them."""
        own = self.trained.items()
        averages = {name: tuple(map(average_of, self.opt_state[name], part)) for name, part in own}
        return merge(averages, self.frozen)


def init_state(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    optimizer: Optimizer,
    *,
    trainable: Trainable,
    mesh: Mesh,
) -> TrainState:
    """Returns the state before the first step.

    Args:
      config: the model; with float16 activations the loss is scaled.
      params: nested dict of arrays on the devices of `mesh`; those without a sharding over it, as
        `captioner.load` gives them on one device, are replicated. Frozen ones that need not be cut
        become part of the state without a copy; they may be quantised. Trained ones are copied as
        float32.
      optimizer: as `make_optimizer` returns it.
      trainable: parameters that train, see `trainable.trained_rows`.
      mesh: as `sharding.make_mesh` returns it.

    Raises:
      ValueError: `trainable` selects nothing, or a parameter that is quantised.
    """
    params = jax.tree.map(lambda leaf: _on_mesh(leaf, mesh), params)
    trained, frozen = split(params, trained_rows(params, trainable))
    # Trained parameters are float32. bfloat16 has 8 significant bits, so it would round away every
    # update of less than 1/512 of the weight.
    trained = {
        name: tuple(_trainable_copy(name, part) for part in parts)
        for name, parts in trained.items()
    }

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
        loss_scale=scalar(first_scale(config), np.float32),
        good_steps=scalar(0, np.int32),
        skipped=scalar(0, np.int32),
        skipped_in_a_row=scalar(0, np.int32),
    )


def abstract_state(
    params: dict[str, Any],
    optimizer: Optimizer,
    *,
    trainable: Trainable,
    quantized: Mapping[str, str] = {},
    undone_dtype: str = "float32",
    mesh: Mesh | None = None,
) -> TrainState:
    """Returns the shapes, dtypes and shardings of the state that `init_state` would return.

    Args:
      optimizer, trainable: as for `init_state`.
      params: nested dict of `jax.ShapeDtypeStruct`, which may have shardings.
      quantized: kind of frozen parameters that are quantised, "int8" or "nf4", by name.
      undone_dtype: dtype that they are undone to.
      mesh: as for `init_state`; None leaves shardings out.

    Raises:
      ValueError: `trainable` selects nothing.
    """
    trained, frozen = split(params, trained_rows(params, trainable))
    trained = jax.tree.map(lambda leaf: leaf.update(dtype=np.float32), trained)
    frozen = {
        name: tuple(stored_as(name, part, quantized[name], undone_dtype) for part in parts)
        if name in quantized
        else parts
        for name, parts in frozen.items()
    }
    everywhere = replicated(mesh) if mesh is not None else None

    def fresh(part: jax.ShapeDtypeStruct) -> Any:
        return jax.tree.map(
            lambda leaf: leaf.update(
                sharding=part.sharding if leaf.shape == part.shape else everywhere
            ),
            jax.eval_shape(optimizer.init, part),
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
    """Returns a state in which other parameters train from now on.

    Parameters that trained before and still train keep their optimizer state. New ones start with
    fresh optimizer state. Parameters that no longer train lose theirs and stay float32.

    Args:
      state: the present state, which must not be used afterwards.
      optimizer: as `make_optimizer` returns it.
      trainable: parameters that train, see `trainable.trained_rows`.

    Raises:
      ValueError: `trainable` selects nothing, or a parameter that is quantised.
    """
    params = state.all_params()
    trained, frozen = split(params, trained_rows(params, trainable))
    opt_states = {}
    for name, parts in trained.items():
        old_spans = _spans(state.frozen.get(name, ()), state.trained.get(name, ()))
        old = [*zip(old_spans, state.opt_state.get(name, ()), strict=True)]
        new_parts, new_states = [], []
        for span, part in zip(_spans(frozen.get(name, ()), parts), parts, strict=True):
            # `split` may cut parts but never joins them. So each new part lies within one old part
            # that trained, or trained nowhere. If rows 2..5 trained, and now rows 0..5 or 4..5 do:
            #     old spans  [2..5]     new spans  [0..1], [2..5]   or   [4..5]
            found = [
                _rows(opt_state, old_span, span)
                for old_span, opt_state in old
                if old_span.start <= span.start and span.stop <= old_span.stop
            ]
            new_parts.append(part if found else _trainable_copy(name, part))
            new_states.append(found[0] if found else _fresh(optimizer, new_parts[-1]))
        trained[name], opt_states[name] = tuple(new_parts), tuple(new_states)
    return dataclasses.replace(state, trained=trained, opt_state=opt_states, frozen=frozen)


def _spans(frozen: Sequence[jax.Array], trained: Sequence[jax.Array]) -> list[range]:
    """Returns the rows of the whole array that each trained part holds."""
    ends = [*itertools.accumulate(part.shape[0] for part in (*frozen, *trained))]
    return [
        range(end - part.shape[0], end)
        for end, part in zip(ends[len(frozen) :], trained, strict=True)
    ]


def _rows(opt_state: Any, old: range, new: range) -> Any:
    """Returns the optimizer state for the rows `new` of a part with the rows `old`."""
    if old == new:
        return opt_state
    # Leaves with one value per row are cut as the part is, others such as Adam's count are shared.
    rows = slice(new.start - old.start, new.stop - old.start)
    return jax.tree.map(
        lambda leaf: leaf[rows] if leaf.shape[:1] == (len(old),) else leaf, opt_state
    )


def _trainable_copy(name: str, part: Any) -> jax.Array:
    """Returns a float32 copy, whose memory a train step may donate."""
    if is_quantized(part):
        raise ValueError(
            f"{name} is to train, but is stored in {part.kind}: load it as float32, by a function "
            "as the `dtype` of load_params, or train an adapter beside it"
        )
    return jnp.array(part, jnp.float32, copy=True)


def _on_mesh(leaf: Any, mesh: Mesh) -> Any:
    if isinstance(getattr(leaf, "sharding", None), NamedSharding):
        return leaf
    return jax.device_put(leaf, replicated(mesh))


def _fresh(optimizer: Optimizer, part: jax.Array) -> Any:
    """Returns new optimizer state for a part; leaves of its shape get its sharding."""
    everywhere = NamedSharding(cast(NamedSharding, part.sharding).mesh, PartitionSpec())
    shardings = jax.tree.map(
        lambda leaf: part.sharding if leaf.shape == part.shape else everywhere,
        jax.eval_shape(optimizer.init, part),
    )
    return jax.jit(optimizer.init, out_shardings=shardings)(part)
