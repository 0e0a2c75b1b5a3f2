"""Implements PaliGemma 1 and 2 in JAX and Flax, with the reference's parameter names and shapes.

import paligemma_lib as pg

config = pg.model.variants.paligemma_3b(image_size=224)
params = pg.model.init(config, jax.random.key(0))
hidden = pg.model.hidden_states(config, params, image, text, segment, position)
logits = pg.model.logits(config, params, hidden)
"""

from paligemma_lib.batch import attention_mask, source_positions
from paligemma_lib.deprecation import former_names
from paligemma_lib.model import (
    attention,
    gemma,
    inputs,
    overview,
    paligemma,
    siglip,
    stack,
    variants,
    vocabulary,
)
from paligemma_lib.model.paligemma import (
    abstract_params,
    hidden_states,
    init,
    logits,
)

__all__ = [
    "abstract_params",
    "attention",
    "attention_mask",
    "gemma",
    "hidden_states",
    "init",
    "inputs",
    "logits",
    "overview",
    "paligemma",
    "siglip",
    "source_positions",
    "stack",
    "variants",
    "vocabulary",
]

__getattr__ = former_names(__name__, previous_slot="source_positions")
