"""Defines what embeds images and texts, and loads it from a folder or the Hugging Face Hub.

embedder = load("siglip-base-patch16-224")
embedder.texts(["a dog"])                       # float32[1, D]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL.Image

from paligemma_lib import hub
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.embedding.siglip_words import WORDS
from paligemma_lib.runtime.regular_files import read_bounded

_MAX_CONFIG_BYTES = 1 << 20
_SIGLIP = "siglip"
_OTHERS = ("clip", "siglip", "siglip2")  # model types of transformers


class Embedder(Protocol):
    """Embeds images and texts in one space, where a caption is near its image."""

    def images(self, images: Sequence[PIL.Image.Image]) -> np.ndarray:
        """Returns float32[N, D], vectors of length 1, for images in RGB."""
        ...

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32[N, D], vectors of length 1. Texts that are too long are cut."""
        ...


def load(weights: str | os.PathLike[str]) -> Embedder:
    """Loads SigLIP or CLIP.

    Args:
      weights: a folder with config.json and safetensors, as transformers writes it, or a model of
        the Hugging Face Hub, OWNER/NAME.

    Raises:
      FileNotFoundError: there is no such folder, or a file is missing in it.
      ValueError: it holds another kind of model, or a file is damaged.
      ImportError: the model needs transformers, which is not installed.
      PermissionError, ConnectionError, OSError: as `hub.fetch`.
    """
    folder = hub.fetch(weights)
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"{folder} has no config.json: expected a folder of SigLIP or CLIP")
    try:
        fields = json_object(read_bounded(config, _MAX_CONFIG_BYTES))
    except ValueError as error:
        raise ValueError(f"{config} is damaged: {error}") from error
    kind = fields.get("model_type")
    if kind not in _OTHERS:
        raise ValueError(
            f"{config}: model_type is {str(kind)[:80]!r}, expected one of {', '.join(_OTHERS)}"
        )
    if kind == _SIGLIP and Path(folder, WORDS).is_file():
        from paligemma_lib.embedding.siglip_folder import load_siglip

        return load_siglip(folder, fields)
    from paligemma_lib.embedding.torch_embedder import TorchEmbedder

    return TorchEmbedder(folder)
