"""Implements SigLIP's vision transformer, which encodes an image as one token per patch.

    params = siglip.init(config, key)
    tokens = siglip.encode(config, params, image)    # dtype[B, P, D]

Tokens have the width of the language model. Source: arXiv 2303.15343, with PaliGemma's linear head
and without pooling (arXiv 2407.07726).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib.model.attention import attention
from paligemma_lib.model.low_rank import Dropout, LayerAdapters
from paligemma_lib.model.partitioning import gathered, split_examples
from paligemma_lib.model.projections import PROJECTIONS
from paligemma_lib.model.stack import scan_layers
from paligemma_lib.model.variants import PaliGemmaConfig, SiglipConfig

_xavier = nn.initializers.xavier_uniform()


class LayerNorm(nn.Module):
    """Layer normalization with learned scale and bias; see `layer_norm`."""

    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x, scale, bias, self.dtype)


class MultiHeadDotProductAttention(nn.Module):
    """Self-attention over all patches, without a mask."""

    num_heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, adapters: LayerAdapters) -> jax.Array:
        dense = functools.partial(nn.DenseGeneral, dtype=self.dtype, kernel_init=_xavier)
        head_dim = x.shape[-1] // self.num_heads
        query, key, value = (
            _adapted(adapters, f"{name[0]}_proj", dense((self.num_heads, head_dim), name=name), x)
            for name in ("query", "key", "value")
        )
        # No mask: every patch attends to every patch.
        out = attention(query * head_dim**-0.5, [(key, value)])
        return _adapted(adapters, "out_proj", dense(x.shape[-1], axis=(-2, -1), name="out"), out)


class MlpBlock(nn.Module):
    """Two dense layers with the tanh form of GELU between them."""

    hidden_dim: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, adapters: LayerAdapters) -> jax.Array:
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=_xavier)
        hidden = nn.gelu(_adapted(adapters, "fc1", dense(self.hidden_dim), x), approximate=True)
        return _adapted(adapters, "fc2", dense(x.shape[-1]), hidden)


class EncoderBlock(nn.Module):
    """Pre-norm transformer block; the residual stream keeps the dtype of the input."""

    config: SiglipConfig
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, dropout: Dropout | None = None) -> jax.Array:
        adapters = LayerAdapters(self.get_variable("params", "lora", {}), dropout)
        y = LayerNorm(self.dtype)(x)
        y = MultiHeadDotProductAttention(self.config.num_heads, self.dtype)(y, adapters)
        x = x + y.astype(x.dtype)
        y = LayerNorm(self.dtype)(x)
        y = MlpBlock(self.config.mlp_dim, self.dtype)(y, adapters)
        return x + y.astype(x.dtype)


def _adapted(adapters: LayerAdapters, name: str, dense: nn.Module, x: jax.Array) -> jax.Array:
    y = dense(x)
    held = dense.variables["params"]
    matrix = PROJECTIONS[f"img/{name}"].matrix
    return adapters.add(name, y, x, lambda: matrix(held["kernel"]), held["bias"])


def init(config: PaliGemmaConfig, key: jax.Array) -> dict[str, Any]:
    """Returns new float32 parameters, named as those under `img/` in the reference checkpoints."""
    vision, width = config.vision, config.language.width
    layers_key, embedding_key, position_key, head_key = jax.random.split(key, 4)
    block = EncoderBlock(vision, config.dtype)
    x = jnp.zeros((1, 1, vision.width), config.residual_dtype)
    layers = jax.vmap(lambda key: block.init(key, x)["params"])(
        jax.random.split(layers_key, vision.depth)
    )
    kernel, position = nn.initializers.lecun_normal(), nn.initializers.normal(vision.width**-0.5)
    patch = (vision.patch_size, vision.patch_size, 3)
    return {
        "embedding": {
            "kernel": kernel(embedding_key, (*patch, vision.width)),
            "bias": jnp.zeros(vision.width),
        },
        "pos_embedding": position(position_key, (1, vision.num_tokens, vision.width)),
        "Transformer": {
            "encoderblock": layers,
            "encoder_norm": {"scale": jnp.ones(vision.width), "bias": jnp.zeros(vision.width)},
        },
        "head": {"kernel": kernel(head_key, (vision.width, width)), "bias": jnp.zeros(width)},
    }


def encode(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    image: jax.Array,
    dropout: Dropout | None = None,
) -> jax.Array:
    """Returns the image tokens, dtype[B, P, D].

    Args:
      config: the model, with its vision config and the width of the language model.
      params: parameters as `init` returns them, in any float dtypes.
      image: float32[B, S, S, 3] in [-1, 1], or uint8[B, S, S, 3], which is scaled to [-1, 1].
      dropout: of the inputs of adapters, in training; None: none.

    Raises:
      ValueError: the image has another shape.
    """
    return encode_keeping(config, params, image, lambda x: None, dropout)[0]


def encode_keeping(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    image: jax.Array,
    keep: Callable[[jax.Array], Any],
    dropout: Dropout | None = None,
) -> tuple[jax.Array, Any]:
    """Returns the same, and what `keep` returned of the output of each layer, stacked."""
    size = config.vision.image_size
    if image.ndim != 4 or image.shape[1:] != (size, size, 3):
        raise ValueError(
            f"siglip.encode: image has shape {image.shape}, expected (B, {size}, {size}, 3). "
            "Resize it, or use a configuration with another image_size."
        )
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) / 127.5 - 1.0

    # The stride of SigLIP's convolution is its kernel size. So patches do not overlap, and the
    # convolution is one matrix product over patches.
    vision, dtype = config.vision, config.dtype
    embedding, positions, head = gathered(
        [params["embedding"], params["pos_embedding"], params["head"]]
    )
    side = size // vision.patch_size
    x = image.reshape(-1, side, vision.patch_size, side, vision.patch_size, 3).astype(dtype)
    # b batch; y, x row and column of a patch; i, j row and column of a pixel in its patch;
    # c channel; d width.
    x = jnp.einsum("byixjc,ijcd->byxd", x, embedding["kernel"].astype(dtype))
    x = x + embedding["bias"].astype(dtype)
    x = x.reshape(-1, vision.num_tokens, vision.width).astype(config.residual_dtype)
    # Position embeddings are learned for one grid of patches. A model for another image size needs
    # its own, see `resize_position_embedding`.
    x = x + positions.astype(config.residual_dtype)

    block = EncoderBlock(vision, dtype)
    transformer = params["Transformer"]

    def of_layer(x: jax.Array, layer: Any, dropout: Dropout | None) -> tuple[jax.Array, Any]:
        x = split_examples(block.apply({"params": layer}, x, dropout))
        return x, keep(x)

    x, kept = scan_layers(
        of_layer,
        x,
        transformer["encoderblock"],
        dropout and dropout.of_layers(vision.depth),
        remat=config.remat,
    )
    # PaliGemma drops SigLIP's pooling head: it keeps all tokens and projects them to Gemma's width.
    norm = transformer["encoder_norm"]
    x = layer_norm(x, norm["scale"], norm["bias"], dtype)
    y = x @ head["kernel"].astype(dtype) + head["bias"].astype(dtype)
    adapters = LayerAdapters(jax.tree.map(lambda leaf: leaf[0], head.get("lora", {})), dropout)
    return adapters.add("projector", y, x, lambda: head["kernel"], head["bias"]), kept


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, dtype: str) -> jax.Array:
    """Applies layer normalization to the last axis in float32, epsilon 1e-6; returns `dtype`."""
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
    return (x * scale.astype(jnp.float32) + bias.astype(jnp.float32)).astype(dtype)


def resize_position_embedding(embedding: np.ndarray, num_tokens: int) -> np.ndarray:
    """Resizes learned position embeddings to another number of patches.

    Interpolates linearly along both axes of the grid and keeps the corners in place. This gives the
    result of `scipy.ndimage.zoom(grid, order=1)`, which the reference uses.

    Args:
      embedding: dtype[1, P, D], position embeddings of a square grid of patches.
      num_tokens: number of patches of the new grid.

    Returns:
      dtype[1, num_tokens, D]; `embedding` itself if P equals `num_tokens`.

    Raises:
      ValueError: P or `num_tokens` is not a square number.
    """
    _, old_tokens, width = embedding.shape
    old, new = math.isqrt(old_tokens), math.isqrt(num_tokens)
    if old**2 != old_tokens or new**2 != num_tokens:
        raise ValueError(
            f"resize_position_embedding: cannot resize from {old_tokens} to {num_tokens} patches: "
            "both must be square numbers, such as 256, 1024 or 4096."
        )
    if old == new:
        return embedding
    # Linear interpolation as a matrix: row k of `weights` holds the weight of each old index in new
    # index k. At most two of them, the neighbours, are not zero, and each row sums to one. From 2
    # to 3 patches a side: [[1, 0], [0.5, 0.5], [0, 1]].
    at = np.linspace(0, old - 1, new)[:, None]
    weights = np.maximum(0, 1 - np.abs(at - np.arange(old))).astype(np.float32)  # [new, old]
    grid = embedding.reshape(old, old, width).astype(np.float32)
    grid = np.tensordot(weights, np.tensordot(weights, grid, 1), ((1,), (1,)))  # [x, y, D]
    return grid.swapaxes(0, 1).reshape(1, num_tokens, width).astype(embedding.dtype)
