"""Loads and saves checkpoints, and moves parameters straight between files and devices.

import paligemma_lib as pg

config = pg.checkpoint.read_config("paligemma-3b-pt-224.f16.npz")
params = pg.checkpoint.load_params("paligemma-3b-pt-224.f16.npz", config, dtype="bfloat16")
pg.checkpoint.save_params("paligemma_flickr8k.params.f16.npz", params, dtype="float16")
pg.checkpoint.huggingface.export(params, config, "my-captioner", tokenizer="tokenizer.model")

paligemma show CHECKPOINT                     # what it is, or what is wrong
paligemma convert SOURCE TARGET               # .npz to a folder, or back

A checkpoint is an `.npz` file of the reference (big_vision) or a Hugging Face folder of
safetensors. `load_params` and `read_config` take both.
"""

from paligemma_lib.checkpoint import (
    arrays,
    configuration,
    conversion,
    huggingface,
    matching,
    npz,
    params,
    placement,
    stored,
)
from paligemma_lib.checkpoint.params import load_params, save_params
from paligemma_lib.checkpoint.stored import read_config

__all__ = [
    "arrays",
    "configuration",
    "conversion",
    "huggingface",
    "load_params",
    "matching",
    "npz",
    "params",
    "placement",
    "read_config",
    "save_params",
    "stored",
]
