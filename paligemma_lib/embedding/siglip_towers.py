"""Computes SigLIP's embeddings of images and texts, with the blocks of PaliGemma's SigLIP.

    image_vectors(config, params["image"], images)          # float32[N, D]
    text_vectors(heads, params["text"], ids)                # float32[N, D]

Source: arXiv 2303.15343. PaliGemma's vision tower is this image tower without its pooling head.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from paligemma_lib.model import siglip
from paligemma_lib.model.attention import attention
from paligemma_lib.model.siglip import EncoderBlock, layer_norm
from paligemma_lib.model.stack import scan_layers
from paligemma_lib.model.variants import PaliGemmaConfig, SiglipConfig

_DTYPE = "float32"

Params = dict[str, Any]


@functools.partial(jax.jit, static_argnums=0)
def image_vectors(config: PaliGemmaConfig, params: Params, images: jax.Array) -> jax.Array:
    """Returns float32[N, D], vectors of length 1.

    Args:
      config: sizes of the image tower, with the width of its own as that of the language model.
      params: `tower` for `siglip.encode` and `pool` for the pooling head, all float32.
      images: float32[N, S, S, 3] in [-1, 1].
    """
    tokens = siglip.encode(config, params["tower"], images)  # its head is the identity
    # One learned query, the probe, attends to all patches.
    pool, heads = params["pool"], config.vision.num_heads
    query, key, value = (
        (x @ pool[f"{name}_kernel"] + pool[f"{name}_bias"]).reshape(*x.shape[:2], heads, -1)
        for name, x in (("query", pool["probe"]), ("key", tokens), ("value", tokens))
    )
    query = jnp.broadcast_to(query, (len(tokens), *query.shape[1:]))
    mixed = attention(query * query.shape[-1] ** -0.5, [(key, value)])
    x = mixed.reshape(len(tokens), -1) @ pool["out_kernel"] + pool["out_bias"]
    y = layer_norm(x, pool["scale"], pool["bias"], _DTYPE)
    y = jax.nn.gelu(y @ pool["in_kernel"] + pool["in_bias"], approximate=True)
    return _unit(x + y @ pool["down_kernel"] + pool["down_bias"])


@functools.partial(jax.jit, static_argnums=0)
def text_vectors(config: SiglipConfig, params: Params, ids: jax.Array) -> jax.Array:
    """Returns float32[N, D], vectors of length 1.

    Args:
      config: sizes of the blocks; those of images are not used.
      params: `tokens`, `positions`, `blocks`, `norm` and `head`, all float32.
      ids: int32[N, L] token ids, padded to as many as there are positions.
    """
    x = params["tokens"][ids] + params["positions"]
    block = EncoderBlock(config, _DTYPE)
    x, _ = scan_layers(
        lambda x, layer, _: (block.apply({"params": layer}, x), None), x, params["blocks"]
    )
    # Texts fill all positions, and the last one, which is mostly padding, stands for the text.
    x = layer_norm(x[:, -1], params["norm"]["scale"], params["norm"]["bias"], _DTYPE)
    return _unit(x @ params["head"]["kernel"] + params["head"]["bias"])


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
