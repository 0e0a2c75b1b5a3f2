"""Makes the function that computes the loss of a batch and its gradients, part by part.

    gradients_of = make_gradients(config, mesh=mesh, microbatches=4)
    loss, gradients = gradients_of(state.trained, state.frozen, batch, supervised, step, scale)

It is called within jit. A batch in parts needs less memory: they are computed one after the other.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from paligemma_lib.model.low_rank import Dropout
from paligemma_lib.model.partitioning import num_shards
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.bounds import real, whole
from paligemma_lib.train.loss import token_losses
from paligemma_lib.train.loss_options import checked_loss
from paligemma_lib.train.microbatching import number_of_parts
from paligemma_lib.trainable import Parts, merge

Arrays = dict[str, jax.Array]


def make_gradients(
    config: PaliGemmaConfig,
    *,
    mesh: Mesh,
    microbatches: int = 1,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    adapter_dropout: float = 0.0,
    seed: int = 0,
) -> Callable[..., tuple[jax.Array, Parts]]:
    """Returns a function of the trained and frozen parts of a state and of a global batch.

    Its further arguments are the sum of the weights that the loss is divided by, float32[]; the
    index of the step, int32[], which dropout depends on; and the factor of the loss, float32[]. It
    returns the loss, float32[], and float32 gradients of the trained parts, without that factor.

    The arguments are those of `make_train_step`.

    Raises:
      ValueError: an argument is out of range, or (the function) a batch cannot be divided among
        devices and microbatches.
    """
    microbatches = whole("make_train_step: microbatches", microbatches, 1)
    label_smoothing, z_loss = checked_loss("make_train_step", label_smoothing, z_loss)
    rate = real("make_train_step: adapter_dropout", adapter_dropout, least=0, below=1)
    seed = whole("make_train_step: seed", seed, 0)

    def gradients_of(
        trained: Parts,
        frozen: Parts,
        batch: Arrays,
        supervised: jax.Array,
        step: jax.Array,
        scale: jax.Array,
    ) -> tuple[jax.Array, Parts]:
        key = jax.random.fold_in(jax.random.key(seed), step)

        # The sum of weights is taken over the global batch, and the loss of each microbatch is
        # divided by it. So the losses of the microbatches add up to the loss of the batch, and so
        # do gradients. A mean of means would weigh a caption by the others in its microbatch.
        def loss_of_part(trained: Parts, part: Arrays, number: Any) -> jax.Array:
            params = merge(trained, frozen)
            drop = Dropout(jax.random.fold_in(key, number), rate) if rate else None
            nll, weight = token_losses(config, params, part, label_smoothing, z_loss, drop)
            # The maximum gives a batch without any weight a loss of 0, not NaN.
            return scale * jnp.sum(nll * weight) / jnp.maximum(supervised, 1e-9)

        def add_part(sums: Any, numbered: tuple[Arrays, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(
                jnp.add, sums, jax.value_and_grad(loss_of_part)(trained, *numbered)
            ), None

        # A scan of one iteration would need memory for a second copy of the gradients.
        parts = number_of_parts(len(batch["text"]), mesh.size, microbatches)
        if parts == 1:
            loss, gradients = jax.value_and_grad(loss_of_part)(trained, batch, 0)
        else:
            zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained)
            numbered = _parts(batch, parts), jnp.arange(parts)
            (loss, gradients), _ = lax.scan(add_part, zeros, numbered)
        # The smallest positive float16 is 6e-8, so smaller gradients of activations would vanish.
        # Gradients of a scaled loss do not; the scale is divided out before they are used.
        return jax.tree.map(lambda x: x / scale, (loss, gradients))

    return gradients_of


def _parts(batch: Arrays, parts: int) -> Arrays:
    """Reshapes [B, ...] to [parts, B / parts, ...]; rows stay on their devices."""

    def divide(x: jax.Array) -> jax.Array:
        # Devices hold consecutive rows. A microbatch of consecutive rows would lie on few devices,
        # and rows would have to move. So each microbatch takes some rows of every device. With 8
        # rows, 2 devices and 2 microbatches:
        #     device 0: 0 1 2 3, device 1: 4 5 6 7    microbatches: [0 1 4 5], [2 3 6 7]
        x = x.reshape(num_shards(), parts, -1, *x.shape[1:])
        x = x.swapaxes(0, 1)
        return x.reshape(parts, -1, *x.shape[3:])

    return jax.tree.map(divide, batch)
