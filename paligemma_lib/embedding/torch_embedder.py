"""Embeds images and texts by a model that Hugging Face transformers loads, such as CLIP.

embedder = TorchEmbedder(Path("clip-vit-base-patch32"))
embedder.images([PIL.Image.open("dog.jpg")])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from paligemma_lib.checkpoint.finite import NotFinite

_BATCH = 32  # images or texts computed at a time


class TorchEmbedder:
    """CLIP, or another model with image and text features; see `Embedder`."""

    def __init__(self, folder: Path) -> None:
        """Loads weights and processor from a local folder; runs no code and no pickle of it.

        Raises:
          ImportError: transformers or torch are not installed.
          ValueError: the folder cannot be loaded, or a parameter is not finite; the message says
            which.
        """
        try:
            import torch
            import transformers
        except ImportError as error:
            raise ImportError(
                f"{folder} needs transformers and torch: pip install 'paligemma_lib[clip]'"
            ) from error
        self._torch = torch
        how: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._processor = transformers.AutoProcessor.from_pretrained(folder, **how)
            model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, **how)
        except Exception as error:  # transformers raises many kinds for a folder that is damaged
            told = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{folder} cannot be loaded: {type(error).__name__}: {told}"
            ) from error
        wrong = {
            name: (count, values.numel())
            for name, values in model.named_parameters()
            if (count := int((~torch.isfinite(values)).sum()))
        }
        if wrong:
            raise NotFinite(str(folder), wrong)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.float().eval().to(self._device)

    def images(self, images: Sequence[PIL.Image.Image]) -> np.ndarray:
        """Returns float32[N, D], vectors of length 1, for images in RGB."""
        return self._in_batches(
            lambda part: self._processor(images=part, return_tensors="pt"),
            self._model.get_image_features,
            images,
        )

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32[N, D], vectors of length 1. Texts that are too long are cut."""
        # SigLIP reads the last of a fixed number of positions; CLIP masks what is padded.
        length = self._model.config.text_config.max_position_embeddings
        return self._in_batches(
            lambda part: self._processor(
                text=part,
                return_tensors="pt",
                padding="max_length",
                truncation=True,
                max_length=length,
            ),
            self._model.get_text_features,
            texts,
        )

    def _in_batches(self, prepared: Any, features: Any, given: Sequence[Any]) -> np.ndarray:
        found = [np.zeros((0, self._model.config.projection_dim), np.float32)] if not given else []
        for start in range(0, len(given), _BATCH):
            inputs = prepared(list(given[start : start + _BATCH])).to(self._device)
            with self._torch.inference_mode():
                vectors = features(**inputs).pooler_output
                unit = vectors / vectors.norm(dim=-1, keepdim=True)
            found.append(unit.cpu().numpy())
        return np.concatenate(found)
