"""Joins SigLIP and Gemma to PaliGemma, with a bidirectional prefix and causal suffixes.

    config = paligemma_3b(image_size=224)
    params = init(config, jax.random.key(0))
    hidden = hidden_states(config, params, image, text, segment, position)
    scores = logits(config, params, hidden)                        # float32[B, T, V]

Image tokens and text form one sequence. `paligemma_lib.batch` defines `text`, `segment` and
`position`. Source: arXiv 2407.07726.
"""

from typing import Any

import jax
import jax.numpy as jnp

from paligemma_lib.model import gemma, siglip, vocabulary
from paligemma_lib.model.low_rank import Dropout
from paligemma_lib.model.sight import Sight
from paligemma_lib.model.variants import PaliGemmaConfig


def init(config: PaliGemmaConfig, key: jax.Array) -> dict[str, Any]:
    """Returns new random parameters: a nested dict of float32 arrays, named as in checkpoints."""
    vision_key, language_key = jax.random.split(key)
    return {"img": siglip.init(config, vision_key), "llm": gemma.init(config, language_key)}


def abstract_params(config: PaliGemmaConfig) -> dict[str, Any]:
    """Returns the parameters of `init` as `jax.ShapeDtypeStruct`s, without allocating memory."""
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


def hidden_states(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    image: jax.Array,
    text: jax.Array,
    segment: jax.Array,
    position: jax.Array,
    indices: jax.Array | None = None,
    dropout: Dropout | None = None,
) -> jax.Array:
    """Returns the final hidden states at all or at selected text positions, for `logits`.

    Args:
      config: the model.
      params: parameters as `init` returns them, in any float dtypes; stacked leaves may be given
        in parts, see `scan_layers`.
      image: float32[B, S, S, 3] in [-1, 1] or uint8[B, S, S, 3].
      text: int32[B, T] tokens.
      segment: int32[B, T], 0 prefix, 1..K suffixes, -1 padding.
      position: int32[B, T]; each suffix continues from the end of the prefix.
      indices: int32[B, M] text positions to return, such as `source_positions(segment)` or the
        last position of a prompt; None returns all T.
      dropout: of the inputs of adapters, in training; None: none.

    Returns:
      dtype[B, M, D], after the final norm.
    """
    num_image_tokens = config.vision.num_tokens
    of_image, of_text = (dropout and dropout.fold(tower) for tower in ("img", "llm"))
    image_tokens = siglip.encode(config, params["img"], image, of_image)
    image_tokens = image_tokens.astype(config.residual_dtype)
    x = jnp.concatenate([image_tokens, vocabulary.embed(config, params["llm"], text)], axis=1)
    # The outputs at image tokens predict nothing, so the last layer does not compute them.
    x, _ = gemma.apply_layers(
        config,
        params["llm"],
        x,
        rope_position(position, num_image_tokens),
        Sight.of_batch(segment, position, num_image_tokens),
        read=text.shape[1] if indices is None else indices + num_image_tokens,
        dropout=of_text,
    )
    return gemma.final_norm(config, params["llm"], x)


def rope_position(position: jax.Array, num_image_tokens: int) -> jax.Array:
    """Returns int32[B, P + T]: 0..P-1 for the image, then the text positions shifted by P."""
    image = jnp.arange(num_image_tokens, dtype=jnp.int32)
    image = jnp.broadcast_to(image, (len(position), num_image_tokens))
    return jnp.concatenate([image, position + num_image_tokens], axis=1)


def logits(config: PaliGemmaConfig, params: dict[str, Any], hidden: jax.Array) -> jax.Array:
    """Returns float32[..., V] logits for hidden states dtype[..., D]."""
    return vocabulary.logits(config, params["llm"], hidden)
