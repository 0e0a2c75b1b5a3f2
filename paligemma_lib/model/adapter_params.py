"""Makes new adapters for a model, as arrays or as shapes, and puts them among its parameters.

options = LowRank(rank=16, targets=("attention",))
shapes = abstract_adapters(abstract_params(config), options)
params = with_adapters(params, init_adapters(params, options, key))
"""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from paligemma_lib.model.low_rank import scale_of
from paligemma_lib.model.projections import (
    PROJECTIONS,
    Projection,
    adapter_name,
    column_norms,
    selected,
)
from paligemma_lib.model.stack import scan_layers
from paligemma_lib.runtime.bounds import real, whole
from paligemma_lib.trainable import full_shape

MARK = "/lora/"  # in the name of every array of an adapter, and of no other


@dataclasses.dataclass(frozen=True)
class LowRank:
    """What a new adapter is like.

    Attributes:
      rank: r, at least 1, and at most the smaller side of each matrix.
      alpha: strength, above 0: the product is multiplied by alpha / r.
      targets: which products: presets or regular expressions, see `projections.selected`.
      rslora: whether to divide by the square root of r instead (arXiv 2312.03732).
      dora: whether norms of weights train, too (arXiv 2402.09353).

    Raises:
      ValueError: rank or alpha is out of bounds.
    """

    rank: int
    alpha: float = 16.0
    targets: tuple[str, ...] = ("attention",)
    rslora: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        whole("LowRank: rank", self.rank, 1)
        real("LowRank: alpha", self.alpha, above=0)


def abstract_adapters(params: Mapping[str, Any], options: LowRank) -> dict[str, Any]:
    """Returns the arrays of a new adapter by name, as `jax.ShapeDtypeStruct`s.

    Args:
      params: nested dict of the model's parameters, or of objects with a shape.
      options: see `LowRank`.

    Raises:
      ValueError: a target selects nothing, or the rank is above a matrix's smaller side.
    """
    flat = flax.traverse_util.flatten_dict(dict(params), sep="/")
    found: dict[str, Any] = {}
    small = {}
    for name in selected(options.targets):
        depth, inputs, outputs = PROJECTIONS[name].shape(full_shape(flat[PROJECTIONS[name].weight]))
        if options.rank > min(inputs, outputs):
            small[name] = f"{name} is {inputs} x {outputs}"
        place, r = adapter_name(name), options.rank
        shapes = {"a": (depth, inputs, r), "b": (depth, r, outputs), "scale": (depth,)}
        if options.dora:
            shapes["magnitude"] = (depth, outputs)
        for part, shape in shapes.items():
            found[f"{place}/{part}"] = jax.ShapeDtypeStruct(shape, jnp.float32)
    if small:
        raise ValueError(
            f"rank {options.rank} is above the smaller side of {len(small)} matrices: "
            f"{'; '.join([*small.values()][:4])}. Choose a lower rank, or other targets"
        )
    return found


def init_adapters(params: Mapping[str, Any], options: LowRank, key: jax.Array) -> dict[str, Any]:
    """Returns the arrays of a new adapter by name; it changes nothing until it is trained.

    `a` is uniform within 1 / sqrt(I), as in PEFT. DoRA's magnitudes are the norms of the weights.

    Args:
      params: nested dict of the model's parameters, whose leaves `projections` can read by layer.
      options: see `LowRank`.
      key: a key of `jax.random`; each array draws from one of its own, by its name.

    Raises:
      ValueError: as in `abstract_adapters`.
    """
    flat = flax.traverse_util.flatten_dict(dict(params), sep="/")
    arrays = {}
    for name, leaf in abstract_adapters(params, options).items():
        kind = name.rpartition("/")[2]
        if kind == "a":
            own, bound = jax.random.fold_in(key, zlib.crc32(name.encode())), leaf.shape[1] ** -0.5
            arrays[name] = jax.random.uniform(own, leaf.shape, jnp.float32, -bound, bound)
        elif kind == "scale":
            value = scale_of(options.alpha, options.rank, options.rslora)
            arrays[name] = jnp.full(leaf.shape, value, jnp.float32)
        else:
            arrays[name] = jnp.zeros(leaf.shape, jnp.float32)
    for name in selected(options.targets) if options.dora else ():
        projection = PROJECTIONS[name]
        weight = flat[projection.weight]
        arrays[f"{adapter_name(name)}/magnitude"] = _norms(projection, weight)
    return arrays


def _norms(projection: Projection, weight: Any) -> jax.Array:
    """Returns float32[L, O], the norms of each layer's weights."""

    def of_layer(weight: jax.Array) -> jax.Array:
        return column_norms(projection.matrix(weight))

    if not projection.is_stacked:
        return of_layer(weight)[None]
    return scan_layers(lambda x, layer, _: (x, of_layer(layer)), (), weight)[1]


def with_adapters(params: Mapping[str, Any], adapters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict of parameters with an adapter's arrays, by name, in their places.

    Arrays are not copied. Adapters that are already there are replaced.
    """
    flat = flax.traverse_util.flatten_dict(dict(params), sep="/")
    flat = {name: leaf for name, leaf in flat.items() if MARK not in name}
    return flax.traverse_util.unflatten_dict({**flat, **adapters}, sep="/")


def adapters_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arrays of the adapter among parameters, by name; empty if there is none."""
    flat = flax.traverse_util.flatten_dict(dict(params), sep="/")
    return {name: leaf for name, leaf in flat.items() if MARK in name}
