"""Reads and writes Hugging Face checkpoints, which are folders of safetensors files.

import paligemma_lib as pg

pg.checkpoint.huggingface.export(params, config, "my-captioner", tokenizer="tokenizer.model")
params = pg.checkpoint.load_params("my-captioner", config)     # as for any checkpoint

`transformers.PaliGemmaForConditionalGeneration.from_pretrained("my-captioner")` opens the folder
that `export` writes, and computes the same logits.
"""

from paligemma_lib.checkpoint.huggingface import (
    config_json,
    folder,
    format,
    reader,
    settings,
    tensors,
    writer,
)
from paligemma_lib.checkpoint.huggingface.reader import SafetensorsReader
from paligemma_lib.checkpoint.huggingface.writer import export

__all__ = [
    "SafetensorsReader",
    "config_json",
    "export",
    "folder",
    "format",
    "reader",
    "settings",
    "tensors",
    "writer",
]
