"""Hugging Face checkpoints: folders of safetensors, in and out.

import paligemma_lib as pg

with pg.huggingface.SafetensorsReader("paligemma-3b-pt-224", config) as file:
    for name, shape in file.shapes.items():        # the reference's names and shapes
        array = file.read(name)
pg.huggingface.export(params, config, "my-captioner", tokenizer="tokenizer.model")

`transformers.PaliGemmaForConditionalGeneration.from_pretrained("my-captioner")` opens what `export`
writes and computes the same logits.
"""

from paligemma_lib.huggingface import format, reader, settings, tensors, writer
from paligemma_lib.huggingface.reader import SafetensorsReader
from paligemma_lib.huggingface.writer import export

__all__ = ["SafetensorsReader", "export", "format", "reader", "settings", "tensors", "writer"]
