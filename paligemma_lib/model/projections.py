"""Names the matrix products that low-rank adapters are added to, as matrices [I, O].

    projection = PROJECTIONS["llm/k_proj"]
    projection.matrix(weight)                # float[I, O] of a layer's weight, [2, K, D, H]
    projection.put(weight, change)           # the weight with its share changed

The names of the products are those of transformers and PEFT. A weight of the reference may hold
several axes for inputs or outputs, in another order, or two products: keys and values are one
array, and so are gate and up. The axes of a layer's weights are L layers, N query heads, K key
heads, D width of the model, H width of a head, F inner values; E is the language model's width.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LAYERS = {"llm": "llm/layers", "img": "img/Transformer/encoderblock"}


@dataclasses.dataclass(frozen=True)
class Projection:
    """One matrix product of the model.

    Attributes:
      weight: name of the parameter.
      axes: axes of the product's share of the weight, inputs first; a letter for each axis.
      inputs: how many of them are inputs.
      order: the axes in the order of the weight, without those of layer and part.
      part: index along the axis behind the layers, if the weight holds two products.
      is_stacked: whether axis 0 of the weight is the layer.
    """

    weight: str
    axes: str
    inputs: int
    order: str
    part: int | None = None
    is_stacked: bool = True

    @property
    def adapter(self) -> str:
        """Where the adapter's arrays are: the name of the dict of all adapters beside it."""
        home = next((p for p in LAYERS.values() if self.weight.startswith(p)), "img/head")
        return f"{home}/lora"

    def shape(self, weight: Sequence[int]) -> tuple[int, int, int]:
        """Returns layers, inputs I and outputs O, from the shape of the whole parameter."""
        depth, share = self._share(tuple(weight))
        sizes = dict(zip(self.order, share, strict=True))
        inner, outer = self.axes[: self.inputs], self.axes[self.inputs :]
        return depth, math.prod(sizes[a] for a in inner), math.prod(sizes[a] for a in outer)

    def matrix(self, weight: Any) -> Any:
        """Returns the product's matrix [I, O] out of one layer's weight, a NumPy or JAX array."""
        share = weight if self.part is None else weight[self.part]
        _, inputs, outputs = self.shape((1, *weight.shape) if self.is_stacked else weight.shape)
        return share.transpose([self.order.index(axis) for axis in self.axes]).reshape(
            inputs, outputs
        )

    def put(self, weight: np.ndarray, matrix: np.ndarray) -> None:
        """Writes the product's matrix [I, O] into one layer's weight, in place."""
        share = weight if self.part is None else weight[self.part]
        sizes = dict(zip(self.order, share.shape, strict=True))
        split = matrix.reshape([sizes[axis] for axis in self.axes])
        share[...] = split.transpose([self.axes.index(axis) for axis in self.order])

    def _share(self, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        depth, rest = (shape[0], shape[1:]) if self.is_stacked else (1, shape)
        return depth, rest if self.part is None else rest[1:]


def _language(weight: str, axes: str, inputs: int, order: str, part: int | None = None) -> Any:
    return Projection(f"llm/layers/{weight}", axes, inputs, order, part)


def _vision(weight: str, axes: str, inputs: int) -> Projection:
    name = f"img/Transformer/encoderblock/{weight}/kernel"
    return Projection(name, axes, inputs, axes)


PROJECTIONS: dict[str, Projection] = {
    "llm/q_proj": _language("attn/q_einsum/w", "DNH", 1, "NDH"),
    "llm/k_proj": _language("attn/kv_einsum/w", "DKH", 1, "KDH", 0),
    "llm/v_proj": _language("attn/kv_einsum/w", "DKH", 1, "KDH", 1),
    "llm/o_proj": _language("attn/attn_vec_einsum/w", "NHD", 2, "NHD"),
    "llm/gate_proj": _language("mlp/gating_einsum", "DF", 1, "DF", 0),
    "llm/up_proj": _language("mlp/gating_einsum", "DF", 1, "DF", 1),
    "llm/down_proj": _language("mlp/linear", "FD", 1, "FD"),
    "img/q_proj": _vision("MultiHeadDotProductAttention_0/query", "DNH", 1),
    "img/k_proj": _vision("MultiHeadDotProductAttention_0/key", "DNH", 1),
    "img/v_proj": _vision("MultiHeadDotProductAttention_0/value", "DNH", 1),
    "img/out_proj": _vision("MultiHeadDotProductAttention_0/out", "NHD", 2),
    "img/fc1": _vision("MlpBlock_0/Dense_0", "DF", 1),
    "img/fc2": _vision("MlpBlock_0/Dense_1", "FD", 1),
    "img/projector": Projection("img/head/kernel", "DE", 1, "DE", is_stacked=False),
}

TARGETS = {  # presets: what is usually adapted
    "attention": r"llm/(q|k|v|o)_proj",
    "mlp": r"llm/(gate|up|down)_proj",
    "llm": r"llm/.*",
    "vision": r"img/(?!projector).*",
    "projector": r"img/projector",
    "all-linear": r".*",
}


def adapter_name(name: str) -> str:
    """Returns where the arrays of a projection's adapter are: `llm/layers/lora/q_proj`."""
    return f"{PROJECTIONS[name].adapter}/{name.partition('/')[2]}"


def selected(targets: Sequence[str]) -> list[str]:
    """Returns the names in PROJECTIONS that presets or regular expressions select, in order.

    Raises:
      ValueError: one of them selects nothing.
    """
    found: set[str] = set()
    for target in targets:
        try:
            pattern = re.compile(TARGETS.get(target, target))
        except re.error as error:
            raise ValueError(f"targets: {target!r} is not a regular expression") from error
        matching = {name for name in PROJECTIONS if pattern.fullmatch(name)}
        if not matching:
            raise ValueError(
                f"targets: {target!r} selects nothing. Give {', '.join(TARGETS)}, or a regular "
                f"expression for {', '.join(PROJECTIONS)}"
            )
        found |= matching
    if not found:
        raise ValueError(f"targets: nothing is selected; give one of {', '.join(TARGETS)}")
    return [name for name in PROJECTIONS if name in found]


def column_norms(matrix: jax.Array) -> jax.Array:
    """Returns float32[O], the norm of each output's weights, of a matrix [I, O]."""
    return jnp.sqrt(jnp.sum(jnp.square(matrix.astype(jnp.float32)), axis=0))
