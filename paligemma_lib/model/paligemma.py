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

from paligemma_lib.model import gemma, siglip, vocabulary
from paligemma_lib.model.variants import PaliGemmaConfig


def init(config: PaliGemmaConfig, key: jax.Array) -> dict[str, Any]:
    """Returns new random parameters: nested dict of float32, named as in the checkpoints."""
    vision_key, language_key = jax.random.split(key)
    return {"img": siglip.init(config, vision_key), "llm": gemma.init(config, language_key)}


def abstract_params(config: PaliGemmaConfig) -> dict[str, Any]:
    """Returns names, shapes and dtypes as `init` would create them, taking no memory."""
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


def attention_mask(segment: jax.Array, position: jax.Array, num_image_tokens: int) -> jax.Array:
    """Returns who sees whom, bool[B, N, N], N = `num_image_tokens` + T: [b, i, j], i sees j.

    All see image and prefix; a token of a suffix also sees its own suffix up to itself; nobody
    sees padding. With one image token, a prefix of two and suffixes of two and one, then padding:

        segment  [0 0 1 1 2 -1]       image  [1 1 1 0 0 0 0]
        position [0 1 2 3 2  0]       prefix [1 1 1 0 0 0 0]
                                             [1 1 1 0 0 0 0]
                                    suffix 1 [1 1 1 1 0 0 0]
                                             [1 1 1 1 1 0 0]
                                    suffix 2 [1 1 1 0 0 1 0]
                                     padding [1 1 1 0 0 0 0]

    Args:
      segment: int32[B, T], 0 prefix, 1..K suffixes, -1 padding.
      position: int32[B, T], rising within each suffix.
      num_image_tokens: P.
    """
    front = ((0, 0), (num_image_tokens, 0))
    segment, position = jnp.pad(segment, front), jnp.pad(position, front)
    same = segment[:, :, None] == segment[:, None, :]
    past = position[:, None, :] <= position[:, :, None]
    suffix = (segment > 0)[:, None, :]
    return (segment == 0)[:, None, :] | (suffix & same & past)


def previous_slot(segment: jax.Array) -> jax.Array:
    """Returns int32[B, T]: the slot from which each slot's token is predicted.

    The first token of every suffix is predicted from the last prefix slot, others from the slot
    before; what is nobody's prediction (slot 0, padding) gets some valid slot.
    """
    slot = jnp.arange(segment.shape[1], dtype=jnp.int32)
    starts = (segment > 0) & (segment != jnp.roll(segment, 1, axis=1))
    last_prefix = jnp.sum(segment == 0, axis=1, keepdims=True, dtype=jnp.int32) - 1
    return jnp.maximum(jnp.where(starts, last_prefix, slot - 1), 0)


def hidden_states(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    image: jax.Array,
    text: jax.Array,
    segment: jax.Array,
    position: jax.Array,
    slots: jax.Array | None = None,
) -> jax.Array:
    """Returns what logits are taken from, at every text slot or at chosen ones.

    Args:
      config: the model.
      params: as `init` returns, in any float types; stacked leaves may be given in pieces, see
        `scan_layers`.
      image: float32[B, S, S, 3] in [-1, 1] or uint8[B, S, S, 3].
      text: int32[B, T] tokens.
      segment: int32[B, T], 0 prefix, 1..K suffixes, -1 padding.
      position: int32[B, T]; every suffix starts again where the prefix ended.
      slots: int32[B, M] text slots wanted, such as `previous_slot(segment)` or the last of a
        prompt; None: all T.

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
    if slots is not None:
        x = jnp.take_along_axis(x, slots[..., None], axis=1)
    return gemma.final_norm(config, params["llm"], x)


def rope_position(position: jax.Array, num_image_tokens: int) -> jax.Array:
    """Returns int32[B, P + T]: 0..P-1 for the image, then the text's positions after them."""
    image = jnp.arange(num_image_tokens, dtype=jnp.int32)
    image = jnp.broadcast_to(image, (len(position), num_image_tokens))
    return jnp.concatenate([image, position + num_image_tokens], axis=1)


def logits(config: PaliGemmaConfig, params: dict[str, Any], hidden: jax.Array) -> jax.Array:
    """Returns float32[..., V] logits of hidden states dtype[..., D]."""
    return vocabulary.logits(config, params["llm"], hidden)
