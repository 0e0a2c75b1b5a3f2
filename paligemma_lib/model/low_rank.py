"""Adds low-rank adapters to the products of a layer: `x A B` beside `x W`, never a sum of weights.

    adapters = LayerAdapters(layer_params.get("lora", {}))
    query = adapters.add("q_proj", query, x, lambda: kernel)

An adapter is a dict of arrays, here of one layer; in the parameters they are stacked by layer as
weights are, and lie beside them: `llm/layers/lora/q_proj/a`. `model.projections` names them.

    a          float32[I, r]      down to rank r
    b          float32[r, O]      up again; zeros in a new adapter, so that it changes nothing
    scale      float32[]          alpha / r, or alpha / sqrt(r) of rsLoRA; never trained
    magnitude  float32[O]         only in DoRA: the norm of each output's weights; 0: not adapted

    LoRA   y = x W + scale x A B                                          (arXiv 2106.09685)
    DoRA   y = magnitude / |W + scale A B| * (x W + scale x A B)          (arXiv 2402.09353)

The norm is taken over inputs, and no gradient goes through it, as in PEFT. rsLoRA is arXiv
2312.03732.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from paligemma_lib.model.partitioning import split_examples
from paligemma_lib.runtime.bounds import real


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dropout:
    """Zeroes inputs of adapters while they train.

    Attributes:
      key: a key of `jax.random`; each product and each layer draws from one of its own.
      rate: the share of zeros, below 1. What remains is divided by `1 - rate`.

    Raises:
      ValueError: the rate is out of bounds.
    """

    key: jax.Array
    rate: float = dataclasses.field(metadata={"static": True})

    def __post_init__(self) -> None:
        real("Dropout: rate", self.rate, least=0, below=1)

    def of_layers(self, depth: int) -> "Dropout":
        """Returns this with a key for each of `depth` layers, for `stack.scan_layers`."""
        return dataclasses.replace(self, key=jax.random.split(self.key, depth))

    def fold(self, name: str) -> "Dropout":
        """Returns this with another key, one for each name."""
        number = zlib.crc32(name.encode())
        return dataclasses.replace(self, key=jax.random.fold_in(self.key, number))

    def apply(self, x: jax.Array) -> jax.Array:
        """Returns `x` with zeros."""
        kept = split_examples(jax.random.bernoulli(self.key, 1 - self.rate, x.shape))
        return jnp.where(kept, x / (1 - self.rate), 0).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class LayerAdapters:
    """The adapters of one layer.

    Attributes:
      params: name of a product, such as "q_proj" -> its adapter; empty: no adapters.
      dropout: None: there is none.
    """

    params: Mapping[str, Mapping[str, jax.Array]]
    dropout: Dropout | None = None

    def add(
        self,
        name: str,
        y: jax.Array,
        x: jax.Array,
        matrix: Callable[[], jax.Array],
        bias: Any = None,
    ) -> jax.Array:
        """Returns a product with its adapter, or as it is if it has none.

        Args:
          name: name of the product.
          y: dtype[B, T, *O], the product, with the bias.
          x: dtype[B, T, *I], its input.
          matrix: returns the weight as [I, O], which DoRA needs.
          bias: dtype[*O] that is part of `y`; None: there is none.
        """
        adapter = self.params.get(name)
        if adapter is None:
            return y
        rows = x.reshape(*x.shape[:2], -1)
        dropped = rows if self.dropout is None else self.dropout.fold(name).apply(rows)
        low = jnp.einsum("bti,ir->btr", dropped, adapter["a"].astype(x.dtype))
        change = jnp.einsum(
            "btr,ro->bto",
            low,
            adapter["b"].astype(x.dtype),
            preferred_element_type=jnp.float32,
        )
        change *= adapter["scale"].astype(jnp.float32)
        if "magnitude" in adapter:
            weight = jax.lax.stop_gradient(matrix())
            norms = weight_norms(weight, adapter)
            magnitude = adapter["magnitude"].astype(jnp.float32)
            factor = jnp.where(magnitude == 0, 1, magnitude / jnp.where(norms == 0, 1, norms))
            product = y if bias is None else y - bias.astype(y.dtype)
            if self.dropout is not None:  # what DoRA adds to the product sees zeros, as in PEFT
                product = dropped @ weight.astype(x.dtype)
            change = factor * change + (factor - 1) * product.reshape(change.shape).astype(
                jnp.float32
            )
        return (y.astype(jnp.float32) + change.reshape(y.shape)).astype(y.dtype)


def weight_norms(matrix: jax.Array, adapter: Mapping[str, jax.Array]) -> jax.Array:
    """Returns float32[O], the norm of each output's weights in W + s A B, without that sum.

    For an output with the weights w, and the column b of B,

        |w + s A b|**2 = |w|**2 + 2 s (A'w) . b + s**2 b . (A'A b)

    where A' is the transpose of A. No gradient goes through it.
    """
    w, a, b, s = (
        jax.lax.stop_gradient(each).astype(jnp.float32)
        for each in (matrix, adapter["a"], adapter["b"], adapter["scale"])
    )
    squares = jnp.sum(jnp.square(w), axis=0)
    squares += 2 * s * jnp.sum(jnp.einsum("ir,io->ro", a, w) * b, axis=0)
    squares += s**2 * jnp.sum(jnp.einsum("ir,iq,qo->ro", a, a, b) * b, axis=0)
    return jnp.sqrt(jnp.maximum(squares, 0))


def scale_of(alpha: float, rank: int, rslora: bool) -> float:
    """Returns the factor of an adapter's product: alpha / r, or alpha / sqrt(r) of rsLoRA."""
    return alpha / (math.sqrt(rank) if rslora else rank)
