"""Constrains the sharding of weights and activations on the mesh in use, if there is one.

    with jax.set_mesh(mesh):                    # any axes: examples are split over all of them
        hidden = jitted_hidden_states(...)      # weights are gathered layer by layer

Without these constraints, XLA keeps split weights in place and moves activations between devices
instead, which costs more than it saves. Without a mesh in use nothing is constrained, so weights
that are split for tensor parallelism stay split.
"""

from typing import Any

import jax
from jax.sharding import PartitionSpec


def gathered(weights: Any) -> Any:
    """Replicates the weights of one layer on every device."""
    # The backward pass needs no code of its own: each device computes the gradient of its examples,
    # and XLA inserts the sum over devices.
    return _constrain(weights, PartitionSpec())


def split_examples(x: Any) -> Any:
    """Splits activations [B, ...] by example over all devices."""
    return _constrain(x, PartitionSpec(jax.sharding.get_abstract_mesh().axis_names))


def num_shards() -> int:
    """Returns the number of shards that examples are split into."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def _constrain(tree: Any, spec: PartitionSpec) -> Any:
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, spec)
