"""Shards decoding over devices: rows like the images; weights keep their own sharding.

    sharding = images_sharding(images, params)        # None: no mesh, nothing to do
    image = jax.device_put(image, sharding)
    cache = split_rows(sharding, cache, axis=1)       # under jit

Rows are split only over axes of the mesh that no weight is split over. Along an axis that splits
weights, all devices have the same rows, and each computes its part of a product. If the rows were
split over such an axis, too, all weights would have to be all-gathered for every token.
"""

import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


def images_sharding(images: Any, params: dict[str, Any]) -> NamedSharding | None:
    """Returns how to shard images along axis 0.

    Returns:
      The sharding of the images, if they are on a mesh. Otherwise a split over those axes of the
      parameters' mesh that no parameter is split over. None: neither is on a mesh.
    """
    own = getattr(images, "sharding", None)
    if isinstance(own, NamedSharding):
        return own
    shardings = [getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(params)]
    named = [each for each in shardings if isinstance(each, NamedSharding)]
    if not named:
        return None
    taken = {axis for each in named for axis in _axes(each.spec)}
    free = tuple(axis for axis in named[0].mesh.axis_names if axis not in taken)
    return NamedSharding(named[0].mesh, PartitionSpec(free))


def place(images: np.ndarray | jax.Array, sharding: NamedSharding) -> jax.Array:
    """Puts images on devices as `sharding` says; every process passes all images."""
    if isinstance(images, jax.Array):
        return jax.device_put(images, sharding)
    # For a NumPy array and several processes, `device_put` would first send the array between the
    # processes, to check that it is the same in all of them.
    return jax.make_array_from_callback(images.shape, sharding, lambda index: images[index])


def num_shards(sharding: NamedSharding | None) -> int:
    """Returns the number of shards of axis 0."""
    if sharding is None:
        return 1
    return math.prod(sharding.mesh.shape[axis] for axis in _axes(sharding.spec[:1]))


def weight_shards(sharding: NamedSharding | None) -> int:
    """Returns the number of devices of the mesh axes that do not split axis 0.

    Weights may be split over these devices.
    """
    return 1 if sharding is None else sharding.mesh.size // num_shards(sharding)


def rows_sharding(image: jax.Array | np.ndarray) -> NamedSharding | None:
    """Returns the sharding of axis 0 of the images, for arrays of any rank; None: no mesh."""
    sharding = getattr(image, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return None
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:1]))


def split_rows(sharding: NamedSharding | None, tree: Any, axis: int = 0) -> Any:
    """Constrains arrays to be split along `axis` as `sharding` splits axis 0, under jit."""
    if sharding is None:
        return tree
    spec = PartitionSpec(*[None] * axis, *sharding.spec)
    return jax.lax.with_sharding_constraint(tree, NamedSharding(sharding.mesh, spec))


def replicate(sharding: NamedSharding | None, tree: Any) -> Any:
    """Constrains arrays to be whole on every device, so that every process can read them."""
    if sharding is None:
        return tree
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.lax.with_sharding_constraint(tree, whole)


def _axes(spec: Iterable[Any]) -> list[str]:
    # An entry of a PartitionSpec is None, an axis name or a tuple of names:
    # [("data", "fsdp"), None, "x"] becomes ["data", "fsdp", "x"].
    parts = [part if isinstance(part, tuple) else (part,) for part in spec]
    return [axis for part in parts for axis in part if axis is not None]
