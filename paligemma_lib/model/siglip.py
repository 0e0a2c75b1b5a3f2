"""SigLIP's vision transformer: images to one token per patch, at the language model's width.

    params = siglip.init(config, key)
    tokens = siglip.encode(config, params, image)    # dtype[B, P, D]

Source: arXiv 2303.15343, with PaliGemma's linear head and no pooling (arXiv 2407.07726).
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib.model.attention import attention
from paligemma_lib.model.partitioning import gathered, split_examples
from paligemma_lib.model.stack import scan_layers
from paligemma_lib.model.variants import PaliGemmaConfig, SiglipConfig

_xavier = nn.initializers.xavier_uniform()


class LayerNorm(nn.Module):
    """Layer normalization, see `layer_norm`."""

    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x, scale, bias, self.dtype)


class MultiHeadDotProductAttention(nn.Module):
    """Self-attention of every patch with every patch."""

    num_heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(nn.DenseGeneral, dtype=self.dtype, kernel_init=_xavier)
        head_dim = x.shape[-1] // self.num_heads
        query, key, value = (
            dense((self.num_heads, head_dim), name=name)(x) for name in ("query", "key", "value")
        )
        # No mask: every patch sees every patch.
        out = attention(query * head_dim**-0.5, [(key, value)])
        return dense(x.shape[-1], axis=(-2, -1), name="out")(out)


class MlpBlock(nn.Module):
    """Two dense layers with GELU in its tanh form between them."""

    hidden_dim: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=_xavier)
        hidden = nn.gelu(dense(self.hidden_dim)(x), approximate=True)
        return dense(x.shape[-1])(hidden)


class EncoderBlock(nn.Module):
    """Pre-norm transformer block; the residual stream keeps the dtype it has."""

    config: SiglipConfig
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = LayerNorm(self.dtype)(x)
        y = MultiHeadDotProductAttention(self.config.num_heads, self.dtype)(y)
        x = x + y.astype(x.dtype)
        y = LayerNorm(self.dtype)(x)
        y = MlpBlock(self.config.mlp_dim, self.dtype)(y)
        return x + y.astype(x.dtype)


def init(config: PaliGemmaConfig, key: jax.Array) -> dict[str, Any]:
    """Returns new parameters (float32), named as under `img/` of the reference checkpoints."""
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


def encode(config: PaliGemmaConfig, params: dict[str, Any], image: jax.Array) -> jax.Array:
    """Returns the image tokens, dtype[B, P, D].

    Args:
      config: the model; its vision part and the language model's width matter here.
      params: as `init` returns, in any float types.
      image: float32[B, S, S, 3] in [-1, 1], or uint8[B, S, S, 3], which is scaled here.

    Raises:
      ValueError: the image has another shape.
    """
    size = config.vision.image_size
    if image.ndim != 4 or image.shape[1:] != (size, size, 3):
        raise ValueError(
            f"siglip.encode: image has shape {image.shape}, expected (B, {size}, {size}, 3). "
            "Resize it, or take a configuration with another image_size."
        )
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) / 127.5 - 1.0

    # The convolution takes each pixel once, so it is one matrix product over patches.
    vision, dtype = config.vision, config.dtype
    embedding, positions, head = gathered(
        [params["embedding"], params["pos_embedding"], params["head"]]
    )
    side = size // vision.patch_size
    x = image.reshape(-1, side, vision.patch_size, side, vision.patch_size, 3).astype(dtype)
    # b batch; y, x place of a patch; i, j place of a pixel in its patch; c colour; d width.
    x = jnp.einsum("byixjc,ijcd->byxd", x, embedding["kernel"].astype(dtype))
    x = x + embedding["bias"].astype(dtype)
    x = x.reshape(-1, vision.num_tokens, vision.width).astype(config.residual_dtype)
    # Learned position embeddings: a model for another image size needs its own, see
    # `resize_position_embedding`.
    x = x + positions.astype(config.residual_dtype)

    block = EncoderBlock(vision, dtype)
    transformer = params["Transformer"]
    x, _ = scan_layers(
        lambda x, layer, _: (split_examples(block.apply({"params": layer}, x)), None),
        x,
        transformer["encoderblock"],
        remat=config.remat,
    )
    # PaliGemma takes all tokens, without SigLIP's pooling head, and maps them to Gemma's width.
    norm = transformer["encoder_norm"]
    x = layer_norm(x, norm["scale"], norm["bias"], dtype)
    return x @ head["kernel"].astype(dtype) + head["bias"].astype(dtype)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, dtype: str) -> jax.Array:
    """Normalizes the last axis, epsilon 1e-6, computed in float32; returns `dtype`."""
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
    return (x * scale.astype(jnp.float32) + bias.astype(jnp.float32)).astype(dtype)


def resize_position_embedding(embedding: np.ndarray, num_tokens: int) -> np.ndarray:
    """Moves learned position embeddings to another number of patches.

    Interpolates linearly along both sides of the grid, corners staying corners: the result of
    `scipy.ndimage.zoom(grid, order=1)`, which the reference uses.

    Args:
      embedding: dtype[1, P, D], of a square grid of patches.
      num_tokens: the new P.

    Returns:
      dtype[1, num_tokens, D]; the same array where P is `num_tokens` already.

    Raises:
      ValueError: a number of patches is no square.
    """
    _, old_tokens, width = embedding.shape
    old, new = math.isqrt(old_tokens), math.isqrt(num_tokens)
    if old**2 != old_tokens or new**2 != num_tokens:
        raise ValueError(
            f"resize_position_embedding: cannot go from {old_tokens} to {num_tokens} patches: "
            "both must be squares, such as 256, 1024 or 4096."
        )
    if old == new:
        return embedding
    # Hat functions: row k of `weights` holds how much each old place gives to new place k, at most
    # two of them not zero. Rows sum to one.
    at = np.linspace(0, old - 1, new)[:, None]
    weights = np.maximum(0, 1 - np.abs(at - np.arange(old))).astype(np.float32)  # [new, old]
    grid = embedding.reshape(old, old, width).astype(np.float32)
    grid = np.tensordot(weights, np.tensordot(weights, grid, 1), ((1,), (1,)))  # [x, y, D]
    return grid.swapaxes(0, 1).reshape(1, num_tokens, width).astype(embedding.dtype)
