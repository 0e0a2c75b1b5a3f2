"""Finds the first place in the model whose output is not finite, for each example of a batch.

    number = first_not_finite(config, params, image, text, segment, position)      # int32[B]
    place_of(config, 31)                     # "layer 4 of 18 of the language model"

A float16 holds no more than 65,504. Where a product exceeds that, it is infinite, and everything
behind it is soon not a number.
"""

from typing import Any

import jax
import jax.numpy as jnp

from paligemma_lib.model import gemma, siglip, vocabulary
from paligemma_lib.model.paligemma import rope_position
from paligemma_lib.model.sight import Sight
from paligemma_lib.model.variants import PaliGemmaConfig


def first_not_finite(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    image: jax.Array,
    text: jax.Array,
    segment: jax.Array,
    position: jax.Array,
) -> jax.Array:
    """Returns int32[B], numbers for `place_of`; the arguments are those of `hidden_states`."""
    tokens, in_vision = siglip.encode_keeping(config, params["img"], image, _is_finite)
    tokens = tokens.astype(config.residual_dtype)
    embedded = vocabulary.embed(config, params["llm"], text)
    _, in_language = gemma.apply_layers(
        config,
        params["llm"],
        jnp.concatenate([tokens, embedded], axis=1),
        rope_position(position, config.vision.num_tokens),
        Sight.of_batch(segment, position, config.vision.num_tokens),
        keep=lambda x, own: _is_finite(x),
    )
    of_image, of_tokens = (_is_finite(each)[None] for each in (image, tokens))
    finite = jnp.concatenate([of_image, in_vision, of_tokens, in_language])
    places = finite.shape[0]
    return jnp.where(jnp.all(finite, axis=0), places, jnp.argmin(finite, axis=0)).astype(jnp.int32)


def place_of(config: PaliGemmaConfig, number: int) -> str | None:
    """Returns the name of a place; None: all places are finite."""
    names = [
        "the image itself",
        *(layer_name(config, "img", k) for k in range(config.vision.depth)),
        "the projection of image tokens",
        *(layer_name(config, "llm", k) for k in range(config.language.depth)),
    ]
    return names[number] if number < len(names) else None


def layer_name(config: PaliGemmaConfig, tower: str, layer: int) -> str:
    """Returns what messages call a layer, counted from 0, of the tower "img" or "llm"."""
    name, depth = {
        "img": ("vision", config.vision.depth),
        "llm": ("language", config.language.depth),
    }[tower]
    return f"layer {layer + 1} of {depth} of the {name} model"


def _is_finite(x: jax.Array) -> jax.Array:
    """Returns bool[B] of dtype[B, ...]."""
    return jnp.all(jnp.isfinite(x), axis=tuple(range(1, x.ndim)))
