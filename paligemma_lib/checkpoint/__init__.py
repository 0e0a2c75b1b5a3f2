"""Loads and saves checkpoints, and moves parameters straight between files and devices.

import paligemma_lib as pg

config = pg.checkpoint.read_config("paligemma-3b-pt-224.f16.npz")
params = pg.checkpoint.load_params("paligemma-3b-pt-224.f16.npz", config, dtype="bfloat16")
pg.checkpoint.save_params("paligemma_flickr8k.params.f16.npz", params, dtype="float16")
pg.checkpoint.huggingface.export(params, config, "my-captioner", tokenizer="tokenizer.model")

paligemma show CHECKPOINT                     # what it is, or what is wrong
paligemma convert SOURCE TARGET               # .npz to a folder, or back
paligemma merge BASE ADAPTER --out X          # LoRA or DoRA into the weights

A checkpoint is an `.npz` file of the reference (big_vision) or a Hugging Face folder of
safetensors. `load_params` and `read_config` take both.
"""

from paligemma_lib.checkpoint import (
    adapters,
    arrays,
    configuration,
    conversion,
    final_export,
    finite,
    huggingface,
    matching,
    npz,
    params,
    placement,
    stored,
    target_names,
)
from paligemma_lib.checkpoint.final_export import export_final
from paligemma_lib.checkpoint.mask_codec_file import load_mask_codec
from paligemma_lib.checkpoint.params import load_params, save_params
from paligemma_lib.checkpoint.stored import read_config
from paligemma_lib.checkpoint.target_names import target_kind

__all__ = [
    "adapters",
    "arrays",
    "configuration",
    "conversion",
    "export_final",
    "final_export",
    "finite",
    "huggingface",
    "load_mask_codec",
    "load_params",
    "matching",
    "npz",
    "params",
    "placement",
    "read_config",
    "save_params",
    "stored",
    "target_kind",
    "target_names",
]
