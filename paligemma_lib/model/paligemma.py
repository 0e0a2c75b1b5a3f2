"""PaliGemma: image tokens and text in one sequence, a prefix read both ways, causal suffixes.

    config = paligemma_3b(image_size=224)
    params = init(config, jax.random.key(0))
    hidden = hidden_states(config, params, image, text, segment, position)
    scores = logits(config, params, hidden)                        # float32[B, T, V]

`text`, `segment` and `position` are those of the batch contract (`paligemma_lib.batch`). Source:
arXiv 2407.07726.
"""

from typing import Any

import jax
import jax.numpy as jnp

from paligemma_lib.batch import attention_mask
from paligemma_lib.model import gemma, siglip, vocabulary
from paligemma_lib.model.variants import PaliGemmaConfig


def init(config: PaliGemmaConfig, key: jax.Array) -> dict[str, Any]:
    """Returns new random parameters: nested dict of float32, named as in the checkpoints."""
    vision_key, language_key = jax.random.split(key)
    return {"img": siglip.init(config, vision_key), "llm": gemma.init(config, language_key)}


def abstract_params(config: PaliGemmaConfig) -> dict[str, Any]:
    """Returns names, shapes and dtypes as `init` would create them, taking no memory."""
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


def hidden_states(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    image: jax.Array,
    text: jax.Array,
    segment: jax.Array,
    position: jax.Array,
    indices: jax.Array | None = None,
) -> jax.Array:
    """Returns what logits are taken from, at every text position or at chosen ones.

    Args:
      config: the model.
      params: as `init` returns, in any float types; stacked leaves may be given in parts, see
        `scan_layers`.
      image: float32[B, S, S, 3] in [-1, 1] or uint8[B, S, S, 3].
      text: int32[B, T] tokens.
      segment: int32[B, T], 0 prefix, 1..K suffixes, -1 padding.
      position: int32[B, T]; every suffix starts again where the prefix ended.
      indices: int32[B, M] text positions wanted, such as `source_positions(segment)` or the last
        of a prompt; None: all T.

    Returns:
      dtype[B, M, D], normalized: pass it to `logits`.
    """
    num_image_tokens = config.vision.num_tokens
    image_tokens = siglip.encode(config, params["img"], image).astype(config.residual_dtype)
    x = jnp.concatenate([image_tokens, vocabulary.embed(config, params["llm"], text)], axis=1)
    mask = attention_mask(segment, position, num_image_tokens)
    x, _ = gemma.apply_layers(
        config, params["llm"], x, rope_position(position, num_image_tokens), mask
    )
    x = x[:, num_image_tokens:]
    if indices is not None:
        x = jnp.take_along_axis(x, indices[..., None], axis=1)
    return gemma.final_norm(config, params["llm"], x)


def rope_position(position: jax.Array, num_image_tokens: int) -> jax.Array:
    """Returns int32[B, P + T]: 0..P-1 for the image, then the text's positions after them."""
    image = jnp.arange(num_image_tokens, dtype=jnp.int32)
    image = jnp.broadcast_to(image, (len(position), num_image_tokens))
    return jnp.concatenate([image, position + num_image_tokens], axis=1)


def logits(config: PaliGemmaConfig, params: dict[str, Any], hidden: jax.Array) -> jax.Array:
    """Returns float32[..., V] logits of hidden states dtype[..., D]."""
    return vocabulary.logits(config, params["llm"], hidden)
