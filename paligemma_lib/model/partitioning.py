"""How a computation is split over the devices of the mesh in use, if there is one.

    with jax.set_mesh(mesh):                    # any axes: examples are split over all of them
        hidden = jitted_hidden_states(...)      # weights are gathered layer by layer

Left to itself, XLA keeps split weights where they are and moves activations around instead, which
costs more than it saves. Without a mesh in use nothing is constrained, so weights that are split
for tensor parallelism stay so.
"""

from typing import Any

import jax
from jax.sharding import PartitionSpec


def gathered(weights: Any) -> Any:
    """The weights of one layer, whole on every device."""
    # The backward pass of a gather is a scatter of sums: the gradient of a weight is reduced to
    # where its part lies, without a line of code for it.
    return _constrain(weights, PartitionSpec())


def split_examples(x: Any) -> Any:
    """Activations [B, ...], examples split over all devices."""
    return _constrain(x, PartitionSpec(jax.sharding.get_abstract_mesh().axis_names))


def num_shards() -> int:
    """Into how many parts examples are split."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def _constrain(tree: Any, spec: PartitionSpec) -> Any:
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, spec)
