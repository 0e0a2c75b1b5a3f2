"""Trains a vision tower below a head that is thrown away: the loop of two scripts.

    mean = train(params, loss, batches, steps, rate=1e-3, weight_decay=0.1, tell=print)

`loss(params, *batch)` is what is minimised. What comes back is an average over the last steps.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import optax

Params = dict[str, Any]

_WARMUP, _AVERAGED = 200, 500  # steps; at most a quarter of all, and a fifth


def train(
    params: Params,
    loss: Callable[..., jax.Array],
    batches: Iterable[Sequence[Any]],
    steps: int,
    *,
    rate: float,
    weight_decay: float,
    tell: Callable[[int, float, Params], None],
    tell_every: int,
) -> Params:
    """Returns the averaged parameters after training.

    Args:
      params: float32 trees; all of them train.
      loss: gives float32[] for parameters and the arrays of a batch.
      batches: at least as many as there are steps.
      steps: number of steps.
      rate: highest learning rate; it rises first, and then falls to 0 along a cosine.
      weight_decay: of matrices.
      tell: takes the number of steps, the seconds so far, and the average.
      tell_every: steps between two calls of `tell`, which comes after the last step, too.
    """
    schedule = optax.warmup_cosine_decay_schedule(0, rate, min(_WARMUP, steps // 4), steps)
    share = 1 / min(_AVERAGED, max(1, steps // 5))
    matrices = jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    adamw = optax.adamw(schedule, b2=0.98, weight_decay=weight_decay, mask=matrices)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), adamw)
    state, mean = optimizer.init(params), params

    @jax.jit
    def step(params: Params, state: Any, mean: Params, batch: Sequence[Any]) -> Any:
        gradient = jax.grad(loss)(params, *batch)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return params, state, optax.incremental_update(params, mean, share)

    begin = time.monotonic()
    for number, batch in zip(range(1, steps + 1), batches, strict=False):
        params, state, mean = step(params, state, mean, batch)
        if number % tell_every == 0 or number == steps:
            tell(number, time.monotonic() - begin, mean)
    return mean
