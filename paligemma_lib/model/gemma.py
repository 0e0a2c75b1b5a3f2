"""Gemma and Gemma 2: embedded tokens through the decoder's layers.

    params = gemma.init(config, key)
    x = vocabulary.embed(config, params, tokens)                   # dtype[B, T, D]
    x, cache = gemma.apply_layers(config, params, x, position, mask, keep_cache=True)
    logits = vocabulary.logits(config, params, gemma.final_norm(config, params, x))

Training, prefill and decoding are this one path: `past` holds the keys and values of what came
before, and whoever decodes keeps the new ones where it likes.

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
    """Root-mean-square normalization, see `rms_norm`."""

    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.zeros, x.shape[-1:])
        return rms_norm(x, scale, self.dtype)


class Einsum(nn.Module):
    """A product with the weight `w`, which is cast to the type of `x`."""

    equation: str
    shape: tuple[int, ...]
    in_axis: int | tuple[int, ...]
    out_axis: int | tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, out_dtype: Any = None) -> jax.Array:
        w = self.param("w", _fan_in(in_axis=self.in_axis, out_axis=self.out_axis), self.shape)
        return jnp.einsum(self.equation, x, w.astype(x.dtype), preferred_element_type=out_dtype)


class Attention(nn.Module):
    """Attention with RoPE; `past` and `mask` as in `apply_layers`."""

    config: GemmaConfig
    residual_dtype: str

    @nn.compact
    def __call__(
        self, x: jax.Array, position: jax.Array, mask: jax.Array, past: Sequence[KeyValue]
    ) -> tuple[jax.Array, KeyValue]:
        c = self.config
        n, k, d, h = c.num_heads, c.num_kv_heads, c.width, c.head_dim
        # Letters: b batch, t time, d width, n query heads, k key heads, h width of a head, c key or
        # value.
        query = Einsum("btd,ndh->btnh", (n, d, h), 1, (0, 2), name="q_einsum")(x)
        key, value = Einsum("btd,ckdh->cbtkh", (2, k, d, h), 2, (0, 1, 3), name="kv_einsum")(x)
        scale = h**-0.5 if c.query_scale is None else c.query_scale
        # Rotated in float32, for angles reach the length of the sequence; then in the type of the
        # products.
        query = (apply_rope(query, position) * scale).astype(x.dtype)
        key = apply_rope(key, position).astype(x.dtype)
        out = attention(query, [*past, (key, value)], mask, c.attention_softcap)
        project = Einsum("btnh,nhd->btd", (n, h, d), (0, 1), 2, name="attn_vec_einsum")
        return project(out, self.residual_dtype), (key, value)


class FeedForward(nn.Module):
    """MLP gated by GELU in its tanh form."""

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
    """One decoder layer; returns its output and the keys and values of its own tokens."""

    config: GemmaConfig
    dtype: str

    @nn.compact
    def __call__(
        self, x: jax.Array, position: jax.Array, mask: jax.Array, past: Sequence[KeyValue] = ()
    ) -> tuple[jax.Array, KeyValue]:
        residual = x.dtype.name
        y = RMSNorm(self.dtype, name="pre_attention_norm")(x)
        y, own = Attention(self.config, residual, name="attn")(y, position, mask, past)
        # Gemma 2 normalizes what a sublayer adds, too.
        if self.config.post_norms:
            y = RMSNorm(residual, name="post_attention_norm")(y)
        x = x + y
        y = RMSNorm(self.dtype, name="pre_ffw_norm")(x)
        y = FeedForward(self.config.mlp_dim, residual, name="mlp")(y)
        if self.config.post_norms:
            y = RMSNorm(residual, name="post_ffw_norm")(y)
        return x + y, own


def init(config: PaliGemmaConfig, key: jax.Array) -> dict[str, Any]:
    """Returns new parameters (float32), named as under `llm/` of the reference checkpoints."""
    language = config.language
    layers_key, embedding_key = jax.random.split(key)
    x = jnp.zeros((1, 1, language.width), config.residual_dtype)
    position, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1, 1), bool)
    # All layers alike: one is initialized for each key, and the results are stacked on axis 0.
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
      params: as `init` returns, in any float types; stacked leaves may be given in parts, see
        `scan_layers`.
      x: dtype[B, T, D] embedded tokens.
      position: int32[B, T] for RoPE, counted over image and text together.
      mask: bool[B, T, S + T], true where a token may look: first at what `past` holds, part by
        part, then at the tokens of `x`.
      past: parts of what came before, each (keys, values) of shape [depth, B / R, S', K, H] as an
        earlier call returned them; each row of a part serves R successive rows of `x`, so that
        beams share what they have in common.
      keep_cache: whether to return the keys and values of `x`.

    Returns:
      dtype[B, T, D] before the final norm, and (keys, values) [depth, B, T, K, H] or None.
    """
    block = Block(config.language, config.dtype)

    def layer(x, layer_params, layer_past):
        x, own = block.apply({"params": layer_params}, x, position, mask, layer_past)
        # Where the layer ends, XLA is told again how activations lie; it would else follow the
        # weights.
        return split_examples(x), own if keep_cache else None

    return scan_layers(layer, x, params["layers"], tuple(past), remat=config.remat)


def final_norm(config: PaliGemmaConfig, params: dict[str, Any], x: jax.Array) -> jax.Array:
    """Normalizes the last layer's output dtype[..., D]; logits are taken from the result."""
    return rms_norm(x, params["final_norm"]["scale"], config.dtype)


def rms_norm(x: jax.Array, scale: jax.Array, dtype: str) -> jax.Array:
    """Returns `x / rms(x) * (1 + scale)` over the last axis, epsilon 1e-6, computed in float32."""
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
    # Checkpoints store scale - 1, so that zeros are the identity.
    return (x * (1 + scale.astype(jnp.float32))).astype(dtype)


def apply_rope(x: jax.Array, position: jax.Array) -> jax.Array:
    """Applies RoPE to [B, T, N, H] at int32[B, T] positions; base 10,000, halves, float32."""
    half = x.shape[-1] // 2
    # Pair j of a head turns by position / 10,000**(j / half). Pairs are (x[j], x[j + half]), as
    # Gemma has them, not neighbours.
    frequency = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position.astype(jnp.float32)[..., None, None] * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    # A rotation of each pair: [cos -sin; sin cos]. The product of a query and a key then depends on
    # the difference of their positions alone.
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
