"""Makes the jitted steps of training and validation.

    step = make_train_step(config, optimizer, mesh=mesh, microbatches=4)
    for batch in batches:
        state, metrics = step(state, batch)          # metrics: float32[] each, still on devices

A train step donates the memory of the old state to the new one. It compiles once for each stage and
shape of batch. The loss is that of the global batch, over all devices and microbatches:
sum(weight * nll) / sum(|weight|). So are its gradients.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from paligemma_lib.model.inputs import check_batch
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.sharding import batch_sharding, put_batch
from paligemma_lib.train.gradients import make_gradients
from paligemma_lib.train.loss import in_place, token_losses
from paligemma_lib.train.loss_scale import next_scale
from paligemma_lib.train.optimizer import Optimizer
from paligemma_lib.train.state import TrainState
from paligemma_lib.trainable import Parts

Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]


def make_train_step(
    config: PaliGemmaConfig,
    optimizer: Optimizer,
    *,
    mesh: Mesh,
    microbatches: int = 1,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    adapter_dropout: float = 0.0,
    seed: int = 0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns a function `state, metrics = step(state, batch)`.

    `batch` contains NumPy arrays of the contract with this process's share of the examples, or the
    global arrays that `sharding.put_batch` makes of them. A weight may be negative, as those of
    `policy` are: the step then makes its token less likely. The metrics are

        loss                loss of the batch before the update
        gradient_norm       global norm before clipping
        learning_rate
        supervised          sum of the weights of the batch, without their signs
        skipped_in_a_row    number of successive steps, up to and including this one, that had no
                            effect because their loss or gradients were not finite

    Args:
      config: the model.
      optimizer: as `make_optimizer` returns it.
      mesh: as `sharding.make_mesh` returns it.
      microbatches: number of parts of a batch that are computed one after the other, to need less
        memory; on many devices fewer, see `microbatching`.
      label_smoothing, z_loss: see `loss.token_losses`.
      adapter_dropout: share of the inputs of adapters that are zeroed, see `low_rank.Dropout`.
      seed: seed of the dropout, which depends on it, the step and the microbatch alone.

    Raises:
      ValueError: an argument is out of range, or (the step) a batch breaks the contract, see
        `model.inputs`, or cannot be divided among devices and microbatches.
    """
    gradients_of = make_gradients(
        config,
        mesh=mesh,
        microbatches=microbatches,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        adapter_dropout=adapter_dropout,
        seed=seed,
    )

    def update(frozen: Parts, changing: dict[str, Any], batch: Metrics) -> tuple[Any, Metrics]:
        trained, opt_state = changing["trained"], changing["opt_state"]
        supervised = jnp.sum(jnp.abs(batch["loss_weight"]), dtype=jnp.float32)
        loss, gradients = gradients_of(
            trained, frozen, batch, supervised, changing["step"], changing["loss_scale"]
        )

        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradients)))
        # Any gradient that is not finite makes the norm not finite, and then the step has no
        # effect. All devices decide alike, since all have the same norm.
        good = jnp.isfinite(norm) & jnp.isfinite(loss)
        if optimizer.clip_norm is not None:
            clip = jnp.minimum(1.0, optimizer.clip_norm / jnp.maximum(norm, 1e-16))
            gradients = jax.tree.map(lambda g: g * clip, gradients)
        learning_rate = jnp.asarray(optimizer.schedule(changing["step"]), jnp.float32)
        new_trained, new_opt_state = _apply(optimizer, learning_rate, trained, opt_state, gradients)

        # `where`, not `cond`: old and new values exist anyway, and `where` can write its result in
        # place into donated memory.
        def keep(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

        in_a_row = jnp.where(good, 0, changing["skipped_in_a_row"] + 1)
        changed = {
            "trained": keep(new_trained, trained),
            "opt_state": keep(new_opt_state, opt_state),
            "step": changing["step"] + 1,
            "skipped": changing["skipped"] + jnp.where(good, 0, 1),
            "skipped_in_a_row": in_a_row,
            **next_scale(config, good, changing["loss_scale"], changing["good_steps"]),
        }
        metrics = {
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": learning_rate,
            "supervised": supervised,
            "skipped_in_a_row": in_a_row.astype(jnp.float32),
        }
        return changed, metrics

    # The changing part of the state is donated, so the new state takes its memory. Frozen
    # parameters are a separate argument that is not donated, since the next step needs them.
    jitted = jax.jit(update, donate_argnums=1)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        arrays = _on_devices("train step", config, mesh, batch, signed=True)
        changing = {name: value for name, value in vars(state).items() if name != "frozen"}
        with jax.set_mesh(mesh):
            changed, metrics = jitted(state.frozen, changing, arrays)
        return TrainState(frozen=state.frozen, **changed), metrics

    step.jitted = jitted  # type: ignore[attr-defined]  # to lower it without a run
    return step


def make_eval_step(
    config: PaliGemmaConfig, *, mesh: Mesh
) -> Callable[[dict[str, Any], Batch], tuple[jax.Array, jax.Array]]:
    """Returns a function `losses, weights = step(params, batch)`, float32[B] each.

    For each example of the global batch, they are the sum of weight * nll and the sum of weights,
    on the device that has the example. The loss over several batches is the sum of all losses
    divided by the sum of all weights. The step raises ValueError for a batch that breaks the
    contract, see `model.inputs`.
    """

    @functools.partial(jax.jit, out_shardings=batch_sharding(mesh))
    def sums(params: dict[str, Any], batch: Metrics) -> tuple[jax.Array, jax.Array]:
        nll, weight = token_losses(config, params, batch)
        losses, weights = (in_place(x, batch["loss_weight"]) for x in (nll * weight, weight))
        return jnp.sum(losses, axis=1), jnp.sum(weights, axis=1)

    def step(params: dict[str, Any], batch: Batch) -> tuple[jax.Array, jax.Array]:
        with jax.set_mesh(mesh):
            return sums(params, _on_devices("eval step", config, mesh, batch))

    return step


def _on_devices(
    what: str, config: PaliGemmaConfig, mesh: Mesh, batch: Batch, signed: bool = False
) -> dict[str, jax.Array]:
    check_batch(what, batch, config.vision.image_size, config.language.vocab_size, signed=signed)
    wanted = ("image", "text", "segment", "position", "loss_weight")
    arrays = {key: batch[key] for key in wanted}
    if all(isinstance(array, np.ndarray) for array in arrays.values()):
        return put_batch(mesh, arrays)
    return arrays


def _apply(
    optimizer: Optimizer, rate: jax.Array, trained: Parts, opt_state: Any, gradients: Parts
) -> tuple[Parts, Any]:
    new_trained, new_opt_state = {}, {}
    for name, parts in trained.items():
        decay = 0.0 if name.endswith(("scale", "bias")) else optimizer.weight_decay
        results = []
        for part, piece_state, gradient in zip(
            parts, opt_state[name], gradients[name], strict=True
        ):
            results.append(optimizer.update(gradient, piece_state, part, rate, decay))
        new_trained[name], new_opt_state[name] = zip(*results, strict=True)
    return new_trained, new_opt_state
