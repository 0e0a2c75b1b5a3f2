"""Implements the decoder layers of Gemma and Gemma 2, for training, prefill and decoding.

    params = gemma.init(config, key)
    x = vocabulary.embed(config, params, tokens)                   # dtype[B, T, D]
    x, cache = gemma.apply_layers(config, params, x, position, mask, keep=lambda _, own: own)
    logits = vocabulary.logits(config, params, gemma.final_norm(config, params, x))

Training, prefill and decoding share this code. `past` holds the keys and values of earlier tokens.
The caller stores the new ones that `apply_layers` returns.

Sources: Gemma (arXiv 2403.08295), Gemma 2 (arXiv 2408.00118), RoPE (arXiv 2104.09864).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from paligemma_lib.model.attention import attention
from paligemma_lib.model.low_rank import Dropout, LayerAdapters
from paligemma_lib.model.partitioning import split_examples
from paligemma_lib.model.projections import PROJECTIONS
from paligemma_lib.model.rope import apply_rope
from paligemma_lib.model.sight import Positions, Sight, at_positions
from paligemma_lib.model.stack import last_layer, scan_layers
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
    """Einsum of the input and a weight `w`, which is cast to the dtype of the input.

    Returns the weight as well, which adapters may need.
    """

    equation: str
    shape: tuple[int, ...]
    in_axis: int | tuple[int, ...]
    out_axis: int | tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, out_dtype: Any = None) -> tuple[jax.Array, jax.Array]:
        w = self.param("w", _fan_in(in_axis=self.in_axis, out_axis=self.out_axis), self.shape)
        y = jnp.einsum(self.equation, x, w.astype(x.dtype), preferred_element_type=out_dtype)
        return y, w


class Attention(nn.Module):
    """Attention with RoPE over earlier and own tokens; for the arguments see `Block`."""

    config: GemmaConfig
    residual_dtype: str

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        position: jax.Array,
        sight: Sight,
        past: Sequence[KeyValue],
        adapters: LayerAdapters,
        read: Positions | None,
    ) -> tuple[jax.Array, KeyValue]:
        c = self.config
        n, k, d, h = c.num_heads, c.num_kv_heads, c.width, c.head_dim
        # b batch, t time, d width of the model, n query heads, k key heads, h width of a head,
        # c key or value.
        looking = x if read is None else at_positions(x, read)
        query, w = Einsum("btd,ndh->btnh", (n, d, h), 1, (0, 2), name="q_einsum")(looking)
        query = _adapted(adapters, "q_proj", query, looking, w)
        both, w = Einsum("btd,ckdh->cbtkh", (2, k, d, h), 2, (0, 1, 3), name="kv_einsum")(x)
        key = _adapted(adapters, "k_proj", both[0], x, w)
        value = _adapted(adapters, "v_proj", both[1], x, w)
        scale = h**-0.5 if c.query_scale is None else c.query_scale
        # RoPE runs in float32, since angles grow up to the length of the sequence; the result is
        # cast to the dtype of the products. The rotation of a key depends on its own position only,
        # so the keys in `past` are already rotated.
        own = position if read is None else at_positions(position, read)
        query = (apply_rope(query, own) * scale).astype(x.dtype)
        key = apply_rope(key, position).astype(x.dtype)
        out = attention(query, [*past, (key, value)], sight, c.attention_softcap)
        project = Einsum("btnh,nhd->btd", (n, h, d), (0, 1), 2, name="attn_vec_einsum")
        y, w = project(out, self.residual_dtype)
        return _adapted(adapters, "o_proj", y, out, w), (key, value)


class FeedForward(nn.Module):
    """Gated MLP: (gelu(x @ gate) * (x @ up)) @ linear, with the tanh form of GELU."""

    hidden_dim: int
    residual_dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, adapters: LayerAdapters) -> jax.Array:
        d, f = x.shape[-1], self.hidden_dim
        gating = self.param("gating_einsum", _fan_in(in_axis=1, out_axis=(0, 2)), (2, d, f))
        linear = self.param("linear", _fan_in(in_axis=0, out_axis=1), (f, d))
        gate, up = (x @ w for w in gating.astype(x.dtype))
        gate = _adapted(adapters, "gate_proj", gate, x, gating)
        up = _adapted(adapters, "up_proj", up, x, gating)
        hidden = nn.gelu(gate, approximate=True) * up
        y = jnp.matmul(hidden, linear.astype(x.dtype), preferred_element_type=self.residual_dtype)
        return _adapted(adapters, "down_proj", y, hidden, linear)


class Block(nn.Module):
    """A decoder layer; returns its output and the keys and values of its own tokens.

    `read` are the positions whose output is read, see `sight.at_positions`; None: all. Keys and
    values are computed for all, queries and the MLP for these alone. `sight` is that of these.
    """

    config: GemmaConfig
    dtype: str

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        position: jax.Array,
        sight: Sight,
        past: Sequence[KeyValue] = (),
        dropout: Dropout | None = None,
        read: Positions | None = None,
    ) -> tuple[jax.Array, KeyValue]:
        residual = x.dtype.name
        adapters = LayerAdapters(self.get_variable("params", "lora", {}), dropout)
        y = RMSNorm(self.dtype, name="pre_attention_norm")(x)
        attend = Attention(self.config, residual, name="attn")
        y, own = attend(y, position, sight, past, adapters, read)
        # Gemma 2 also normalizes the output of each sublayer, in the dtype of the residual stream.
        if self.config.post_norms:
            y = RMSNorm(residual, name="post_attention_norm")(y)
        x = (x if read is None else at_positions(x, read)) + y
        y = RMSNorm(self.dtype, name="pre_ffw_norm")(x)
        y = FeedForward(self.config.mlp_dim, residual, name="mlp")(y, adapters)
        if self.config.post_norms:
            y = RMSNorm(residual, name="post_ffw_norm")(y)
        return x + y, own


def _adapted(
    adapters: LayerAdapters, name: str, y: jax.Array, x: jax.Array, w: jax.Array
) -> jax.Array:
    return adapters.add(name, y, x, lambda: PROJECTIONS[f"llm/{name}"].matrix(w))


def init(config: PaliGemmaConfig, key: jax.Array) -> dict[str, Any]:
    """Returns new float32 parameters, named as those under `llm/` in the reference checkpoints."""
    language = config.language
    layers_key, embedding_key = jax.random.split(key)
    x = jnp.zeros((1, 1, language.width), config.residual_dtype)
    position = jnp.zeros((1, 1), jnp.int32)
    sight = Sight(position)
    # vmap over one key per layer initializes all layers and stacks them along axis 0.
    block = Block(language, config.dtype)
    layers = jax.vmap(lambda key: block.init(key, x, position, sight)["params"])(
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
    sight: Sight,
    past: Sequence[KeyValue] = (),
    *,
    read: Positions | None = None,
    keep: Callable[[jax.Array, Any], Any] = lambda x, own: None,
    dropout: Dropout | None = None,
) -> tuple[jax.Array, Any]:
    """Runs all layers over embedded tokens.

    Args:
      config: the model.
      params: parameters as `init` returns them, in any float dtypes; stacked leaves may be given
        in parts, see `scan_layers`.
      x: dtype[B, T, D] embedded tokens.
      position: int32[B, T] positions for RoPE, counted over image and text together.
      sight: which tokens attend to which: the S tokens of `past` come first, part by part, then
        the T tokens of `x`.
      past: keys and values of earlier tokens, in parts. Each part is a pair (keys, values) of
        shape [depth, B / R, S', K, H], as an earlier call returned it. Each row of a part serves
        R successive rows of `x`, so that beams share the keys that they have in common.
      read: the M positions whose output is read, see `sight.at_positions`; None: all. The last
        layer computes queries and MLP for these alone.
      keep: returns what to keep of a layer, given its output and the keys and values of `x`.
      dropout: of the inputs of adapters, in training; None: none.

    Returns:
      The output dtype[B, M, D] before the final norm, and what `keep` returned, stacked: of keys
      and values, [depth, B, T, K, H].
    """
    block = Block(config.language, config.dtype)

    def layer(x, layer_params, inputs, sight=sight, read=None):
        past, dropout = inputs
        x, own = block.apply({"params": layer_params}, x, position, sight, past, dropout, read)
        # The constraint at the end of each layer keeps activations split by example. Without it,
        # XLA would choose their sharding from that of the weights.
        return split_examples(x), keep(x, own)

    inputs = tuple(past), dropout and dropout.of_layers(config.language.depth)
    if read is None:
        return scan_layers(layer, x, params["layers"], inputs, remat=config.remat)
    top = functools.partial(layer, sight=sight.of(read, x.shape[1]), read=read)
    if config.language.depth == 1:
        return last_layer(top, x, params["layers"], inputs, remat=config.remat)
    x, below = scan_layers(layer, x, params["layers"], inputs, remat=config.remat, last=False)
    x, own = last_layer(top, x, params["layers"], inputs, remat=config.remat)
    return x, jax.tree.map(lambda *parts: jnp.concatenate(parts), below, own)


def final_norm(config: PaliGemmaConfig, params: dict[str, Any], x: jax.Array) -> jax.Array:
    """Normalizes the output of the last layer, dtype[..., D], for `vocabulary.logits`."""
    return rms_norm(x, params["final_norm"]["scale"], config.dtype)


def rms_norm(x: jax.Array, scale: jax.Array, dtype: str) -> jax.Array:
    """Returns `x / rms(x) * (1 + scale)` over the last axis, computed in float32; epsilon 1e-6."""
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
    # Checkpoints store the scale minus 1, so that zeros mean a scale of 1.
    return (x * (1 + scale.astype(jnp.float32))).astype(dtype)
