"""Implements the decoder layers of Gemma and Gemma 2, for training, prefill and decoding.

    params = gemma.init(config, key)
    x = vocabulary.embed(config, params, tokens)                   # dtype[B, T, D]
    x, cache = gemma.apply_layers(config, params, x, position, mask, keep_cache=True)
    logits = vocabulary.logits(config, params, gemma.final_norm(config, params, x))

Training, prefill and decoding share this code. `past` holds the keys and values of earlier tokens.
The caller stores the new ones that `apply_layers` returns.

Sources: Gemma (arXiv 2403.08295), Gemma 2 (arXiv 2408.00118), RoPE (arXiv 2104.09864).
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from paligemma_lib.model.attention import attention
from paligemma_lib.model.partitioning import split_examples
from paligemma_lib.model.stack import scan_layers
from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig

KeyValue = tuple[jax.Array, jax.Array]

_fan_in = functools.partial(nn.initializers.variance_scaling, 1.0, "fan_in", "truncated_normal")


class RMSNorm(nn.Module):
    """RMS normalization with a learned scale; see `rms_norm`."""

    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.zeros, x.shape[-1:])
        return rms_norm(x, scale, self.dtype)


class Einsum(nn.Module):
    """Einsum of the input and a weight `w`, which is cast to the dtype of the input."""

    equation: str
    shape: tuple[int, ...]
    in_axis: int | tuple[int, ...]
    out_axis: int | tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, out_dtype: Any = None) -> jax.Array:
        w = self.param("w", _fan_in(in_axis=self.in_axis, out_axis=self.out_axis), self.shape)
        return jnp.einsum(self.equation, x, w.astype(x.dtype), preferred_element_type=out_dtype)


class Attention(nn.Module):
    """Attention with RoPE over earlier and own tokens; for the arguments see `apply_layers`."""

    config: GemmaConfig
    residual_dtype: str

    @nn.compact
    def __call__(
        self, x: jax.Array, position: jax.Array, mask: jax.Array, past: Sequence[KeyValue]
    ) -> tuple[jax.Array, KeyValue]:
        c = self.config
        n, k, d, h = c.num_heads, c.num_kv_heads, c.width, c.head_dim
        # b batch, t time, d width of the model, n query heads, k key heads, h width of a head,
        # c key or value.
        query = Einsum("btd,ndh->btnh", (n, d, h), 1, (0, 2), name="q_einsum")(x)
        key, value = Einsum("btd,ckdh->cbtkh", (2, k, d, h), 2, (0, 1, 3), name="kv_einsum")(x)
        scale = h**-0.5 if c.query_scale is None else c.query_scale
        # RoPE runs in float32, since angles grow up to the length of the sequence; the result is
        # cast to the dtype of the products. The rotation of a key depends on its own position only,
        # so the keys in `past` are already rotated.
        query = (apply_rope(query, position) * scale).astype(x.dtype)
        key = apply_rope(key, position).astype(x.dtype)
        out = attention(query, [*past, (key, value)], mask, c.attention_softcap)
        project = Einsum("btnh,nhd->btd", (n, h, d), (0, 1), 2, name="attn_vec_einsum")
        return project(out, self.residual_dtype), (key, value)


class FeedForward(nn.Module):
    """Gated MLP: (gelu(x @ gate) * (x @ up)) @ linear, with the tanh form of GELU."""

    hidden_dim: int
    residual_dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        d, f = x.shape[-1], self.hidden_dim
        gating = self.param("gating_einsum", _fan_in(in_axis=1, out_axis=(0, 2)), (2, d, f))
        linear = self.param("linear", _fan_in(in_axis=0, out_axis=1), (f, d))
        gate, up = (x @ w for w in gating.astype(x.dtype))
        hidden = nn.gelu(gate, approximate=True) * up
        return jnp.matmul(
            hidden, linear.astype(x.dtype), preferred_element_type=self.residual_dtype
        )


class Block(nn.Module):
    """A decoder layer; returns its output and the keys and values of its own tokens."""

    config: GemmaConfig
    dtype: str

    @nn.compact
    def __call__(
        self, x: jax.Array, position: jax.Array, mask: jax.Array, past: Sequence[KeyValue] = ()
    ) -> tuple[jax.Array, KeyValue]:
        residual = x.dtype.name
        y = RMSNorm(self.dtype, name="pre_attention_norm")(x)
        y, own = Attention(self.config, residual, name="attn")(y, position, mask, past)
        # Gemma 2 also normalizes the output of each sublayer, in the dtype of the residual stream.
        if self.config.post_norms:
            y = RMSNorm(residual, name="post_attention_norm")(y)
        x = x + y
        y = RMSNorm(self.dtype, name="pre_ffw_norm")(x)
        y = FeedForward(self.config.mlp_dim, residual, name="mlp")(y)
        if self.config.post_norms:
            y = RMSNorm(residual, name="post_ffw_norm")(y)
        return x + y, own


def init(config: PaliGemmaConfig, key: jax.Array) -> dict[str, Any]:
    """Returns new float32 parameters, named as those under `llm/` in the reference checkpoints."""
    language = config.language
    layers_key, embedding_key = jax.random.split(key)
    x = jnp.zeros((1, 1, language.width), config.residual_dtype)
    position, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1, 1), bool)
    # vmap over one key per layer initializes all layers and stacks them along axis 0.
    block = Block(language, config.dtype)
    layers = jax.vmap(lambda key: block.init(key, x, position, mask)["params"])(
        jax.random.split(layers_key, language.depth)
    )
    embedding_init = nn.initializers.normal(language.width**-0.5)
    table = embedding_init(embedding_key, (language.vocab_size, language.width))
    return {
        "embedder": {"input_embedding": table},
        "layers": layers,
        "final_norm": {"scale": jnp.zeros(language.width)},
    }


def apply_layers(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    x: jax.Array,
    position: jax.Array,
    mask: jax.Array,
    past: Sequence[KeyValue] = (),
    *,
    keep_cache: bool = False,
) -> tuple[jax.Array, KeyValue | None]:
    """Runs all layers over embedded tokens.

    Args:
      config: the model.
      params: parameters as `init` returns them, in any float dtypes; stacked leaves may be given
        in parts, see `scan_layers`.
      x: dtype[B, T, D] embedded tokens.
      position: int32[B, T] positions for RoPE, counted over image and text together.
      mask: bool[B, T, S + T], true where a token attends: the S tokens of `past` come first, part
        by part, then the T tokens of `x`.
      past: keys and values of earlier tokens, in parts. Each part is a pair (keys, values) of
        shape [depth, B / R, S', K, H], as an earlier call returned it. Each row of a part serves
        R successive rows of `x`, so that beams share the keys that they have in common.
      keep_cache: whether to return the keys and values of `x`.

    Returns:
      The output dtype[B, T, D] before the final norm, and (keys, values) of shape
      [depth, B, T, K, H] or None.
    """
    block = Block(config.language, config.dtype)

    def layer(x, layer_params, layer_past):
        x, own = block.apply({"params": layer_params}, x, position, mask, layer_past)
        # The constraint at the end of each layer keeps activations split by example. Without it,
        # XLA would choose their sharding from that of the weights.
        return split_examples(x), own if keep_cache else None

    return scan_layers(layer, x, params["layers"], tuple(past), remat=config.remat)


def final_norm(config: PaliGemmaConfig, params: dict[str, Any], x: jax.Array) -> jax.Array:
    """Normalizes the output of the last layer, dtype[..., D], for `vocabulary.logits`."""
    return rms_norm(x, params["final_norm"]["scale"], config.dtype)


def rms_norm(x: jax.Array, scale: jax.Array, dtype: str) -> jax.Array:
    """Returns `x / rms(x) * (1 + scale)` over the last axis, computed in float32; epsilon 1e-6."""
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
    # Checkpoints store the scale minus 1, so that zeros mean a scale of 1.
    return (x * (1 + scale.astype(jnp.float32))).astype(dtype)


def apply_rope(x: jax.Array, position: jax.Array) -> jax.Array:
    """Applies RoPE with base 10,000 to [B, T, N, H] at int32[B, T] positions; returns float32."""
    half = x.shape[-1] // 2
    # Pair j of a head is rotated by the angle position / 10,000**(j / half). As in Gemma, a pair is
    # (x[j], x[j + half]), not (x[2 j], x[2 j + 1]).
    frequency = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position.astype(jnp.float32)[..., None, None] * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    # Each pair is multiplied by the rotation matrix [cos -sin; sin cos]. The product of a query and
    # a key then depends only on the difference of their positions.
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
