"""Models of the real sizes with random parameters, made where they lie, and batches of noise.

config = model_of("paligemma_3b", dry_run=False, dtype="bfloat16", remat="dots")
params = random_params(config, lambda name: "bfloat16")
batch = batch_of(config, images=8, captions=5, text_len=128)
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from paligemma_lib import model
from paligemma_lib.data import pack
from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig

PROMPT = [2, 21209, 659, 108]  # `caption en`
CAPTION = 14  # tokens of a caption of Flickr8k, on average

_SMALL = 1 << 16  # values


def model_of(name: str, dry_run: bool, image_size: int = 224, **changes: Any) -> PaliGemmaConfig:
    """A published model, or a tiny one of its kind for a dry run."""
    config: PaliGemmaConfig
    if dry_run:
        gemma2 = {"attention_softcap": 50.0, "post_norms": True} if "2" in name[8:10] else {}
        language = GemmaConfig(
            width=64, depth=3, mlp_dim=128, num_heads=4, num_kv_heads=1, head_dim=16,
            vocab_size=512, **gemma2,
        )  # fmt: skip
        vision = SiglipConfig(
            image_size // 7, patch_size=8, width=48, depth=2, mlp_dim=96, num_heads=4
        )
        config = PaliGemmaConfig(vision, language)
    else:
        config = getattr(model.variants, name)(image_size)
    return dataclasses.replace(config, **changes)


def random_params(config: PaliGemmaConfig, dtype_of: Callable[[str], str]) -> dict[str, Any]:
    """Parameters made some rows at a time on the device: no float32 copy ever exists."""

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def make(key: jax.Array, shape: tuple[int, ...], dtype: str) -> jax.Array:
        turns = shape[0] if shape[0] < 64 else math.gcd(shape[0], 64)
        some_rows = (shape[0] // turns, *shape[1:])
        rows = functools.partial(
            jax.random.uniform, shape=some_rows, dtype=dtype, minval=-0.03, maxval=0.03
        )
        return jax.lax.map(rows, jax.random.split(key, turns)).reshape(shape)

    flat = flatten_dict(model.abstract_params(config), sep="/")
    keys = jax.random.split(jax.random.key(0, impl="rbg"), len(flat))
    rng = np.random.default_rng(0)
    params = {}
    for key, (name, leaf) in zip(keys, flat.items(), strict=True):
        if leaf.size < _SMALL:  # sent, which is sooner done than to compile for its shape
            values = rng.uniform(-0.03, 0.03, leaf.shape).astype(np.float32)
            params[name] = jax.device_put(values.astype(jnp.dtype(dtype_of(name))))
        else:
            params[name] = jax.block_until_ready(make(key, leaf.shape, dtype_of(name)))
    return unflatten_dict(params, sep="/")


def batch_of(
    config: PaliGemmaConfig, images: int, captions: int, text_len: int
) -> dict[str, np.ndarray]:
    """Images of noise, the prompt, and captions of any tokens; see `paligemma_lib.batch`."""
    rng = np.random.default_rng(0)
    vocab = config.language.vocab_size
    prompt = [token if token < vocab else token % 200 + 4 for token in PROMPT]
    rows = []
    for _ in range(images):
        suffixes = [[*rng.integers(300, vocab - 1, CAPTION - 1), 1] for _ in range(captions)]
        rows.append(pack(prompt, suffixes, text_len))
    side = config.vision.image_size
    image = rng.integers(0, 256, (images, side, side, 3), np.uint8)
    return {"image": image, **{key: np.stack([row[key] for row in rows]) for key in rows[0]}}
