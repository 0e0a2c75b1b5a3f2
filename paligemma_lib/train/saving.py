"""Checkpoints of training, by Orbax: what has changed so far, to go on from.

    with Checkpoints("workdir/checkpoints", keep=2) as checkpoints:
        if (step := checkpoints.latest()) is not None:
            checkpoints.check(step, run)                     # same config, same frozen parameters
            state = checkpoints.restore(step, state)
        checkpoints.save(state, run, validation_loss=2.3)    # goes on in the background

Frozen parameters are not in it: they come from the file that training started from, which is told
by its hash. All processes save and restore together, each its own part, and another number of them,
or another mesh, may go on.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from paligemma_lib.train.state import TrainState

_SPREAD = 2654435761  # near 2**32 over the golden ratio, so that places get spread weights


class Checkpoints:
    """The checkpoints of a run in one folder; a context manager that waits for the last one.

    The newest `keep` are kept, and the one with the lowest validation loss. What is half-written
    when a process dies is never found again.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        """Opens or makes the folder, local or `gs://`."""
        path = os.fspath(folder)
        self._folder = path if "://" in path else os.path.abspath(path)
        policies = [
            LatestN(keep),
            BestN(
                get_metric_fn=lambda metrics: metrics["validation_loss"],
                reverse=True,
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies), cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The step of the newest checkpoint, if there is one."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, run: Mapping[str, Any], validation_loss: float | None = None
    ) -> None:
        """Saves a state after its step; returns when the state may be used again.

        Args:
          state: what has trained, the optimizer's state and the counters are saved.
          run: what must be the same to go on, as JSON: see `check`.
          validation_loss: if it was measured at this step.
        """
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_changing(state)), run=ocp.args.JsonSave(dict(run))
            ),
            metrics=None if validation_loss is None else {"validation_loss": validation_loss},
        )

    def check(self, step: int, run: Mapping[str, Any], may_differ: Collection[str] = ()) -> None:
        """Raises ValueError where `run` is not as it was when this checkpoint was saved."""
        saved = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))
        before, now = _flat(saved["run"]), _flat(json.loads(json.dumps(run)))
        differing = [
            f"  {name}: was {before.get(name)!r}, is {now.get(name)!r}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name) and name not in may_differ
        ]
        if differing:
            raise ValueError(
                f"{self._folder} holds a run with another configuration, at step {step}:\n"
                + "\n".join(differing)
                + "\nTake another folder, or say which of these may differ"
            )

    def restore(self, step: int, state: TrainState) -> TrainState:
        """Returns the state that was saved.

        Args:
          step: of a checkpoint.
          state: of the same stage; says where everything lies on the devices.

        Raises:
          ValueError: other parameters trained then.
        """
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _changing(state)
        )
        try:
            saved = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
            )
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{self._folder}, step {step}: it does not hold what trains now. Take another "
                f"folder, or train what trained then ({error})"
            ) from error
        return dataclasses.replace(state, **saved["state"])


def fingerprint(params: Any) -> str:
    """16 hexadecimal digits that tell parameters apart by their bits and where these stand.

    Computed where the arrays lie, and the same for any sharding. A check, not a safeguard.
    """

    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(
            f"{jax.tree_util.keystr(path)} {leaf.dtype} {int(_sum_of_bits(leaf))}\n".encode()
        )
    return digest.hexdigest()[:16]


@jax.jit
def _sum_of_bits(array: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}")
    place = jnp.uint32(0)
    for axis in range(array.ndim):
        weight = jnp.uint32(pow(_SPREAD, axis + 1, 1 << 32))
        place += weight * jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    return jnp.sum(bits.astype(jnp.uint32) * (2 * place + 1), dtype=jnp.uint32)


def _changing(state: TrainState) -> dict[str, Any]:
    return {name: value for name, value in vars(state).items() if name != "frozen"}


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {
        name: value
        for key, branch in tree.items()
        for name, value in _flat(branch, f"{prefix}.{key}" if prefix else str(key)).items()
    }
