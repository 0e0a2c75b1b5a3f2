"""How decoding is spread over devices: rows as the images are, weights as they lie.

    sharding = images_sharding(images, params)        # None: no mesh, nothing to do
    image = jax.device_put(image, sharding)
    cache = split_rows(sharding, cache, axis=1)       # under jit

Weights split over an axis of the mesh work on the same rows there, each device on its part of a
product; were the rows split too, all weights would have to be gathered for every token.
"""

import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


def images_sharding(images: Any, params: dict[str, Any]) -> NamedSharding | None:
    """The images' own, or one over the axes of the parameters' mesh that no parameter takes."""
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
    """Sends images, which every process has all of, to where `sharding` wants them."""
    if isinstance(images, jax.Array):
        return jax.device_put(images, sharding)
    # `device_put` would compare what the processes have, and move it between them for that.
    return jax.make_array_from_callback(images.shape, sharding, lambda index: images[index])


def num_shards(sharding: NamedSharding | None) -> int:
    """Into how many parts axis 0 is split."""
    if sharding is None:
        return 1
    return math.prod(sharding.mesh.shape[axis] for axis in _axes(sharding.spec[:1]))


def weight_shards(sharding: NamedSharding | None) -> int:
    """Over how many devices weights may be split while axis 0 is split so."""
    return 1 if sharding is None else sharding.mesh.size // num_shards(sharding)


def rows_sharding(image: jax.Array | np.ndarray) -> NamedSharding | None:
    """How axis 0 of an image is split, for arrays of any rank; None: it lies on no mesh."""
    sharding = getattr(image, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return None
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:1]))


def split_rows(sharding: NamedSharding | None, tree: Any, axis: int = 0) -> Any:
    """Splits arrays along one axis as `sharding` says of axis 0."""
    if sharding is None:
        return tree
    spec = PartitionSpec(*[None] * axis, *sharding.spec)
    return jax.lax.with_sharding_constraint(tree, NamedSharding(sharding.mesh, spec))


def replicate(sharding: NamedSharding | None, tree: Any) -> Any:
    """The whole on every device, so that every process can read it."""
    if sharding is None:
        return tree
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.lax.with_sharding_constraint(tree, whole)


def _axes(spec: Iterable[Any]) -> list[str]:
    parts = [part if isinstance(part, tuple) else (part,) for part in spec]
    return [axis for part in parts for axis in part if axis is not None]
