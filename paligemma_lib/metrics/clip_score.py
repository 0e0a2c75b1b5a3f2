"""Computes CLIPScore and RefCLIPScore from embeddings of images and texts.

    clip = clip_scores(images, captions)                    # float32[N, D] each, of length 1
    both = ref_clip_scores(clip, captions, references)      # references: float32[K, D] of each

Source: arXiv 2104.08718. Scores of different models are not comparable: the constants are those of
CLIP ViT-B/32, whatever the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PREFIX = "A photo depicts "  # stands before each caption and each reference

_SCALE = 2.5  # cosines of CLIP ViT-B/32 are seldom above 0.4, so that scores seldom exceed 1


def clip_scores(images: np.ndarray, captions: np.ndarray) -> np.ndarray:
    """Returns float64[N], 2.5 times the cosine of each image and its caption; 0 if it is negative.

    Args:
      images, captions: float[N, D] vectors of length 1.
    """
    return _SCALE * np.maximum(_cosines(images, captions), 0)


def ref_clip_scores(
    clip: np.ndarray, captions: np.ndarray, references: Sequence[np.ndarray]
) -> np.ndarray:
    """Returns float64[N], the harmonic means of CLIPScore and the best cosine with a reference.

    Args:
      clip: float[N] CLIPScores.
      captions: float[N, D] vectors of length 1.
      references: for each image, float[K, D] vectors of its K references, K >= 1.
    """
    best = np.array(
        [
            max(0.0, *_cosines(texts, caption))
            for caption, texts in zip(captions, references, strict=True)
        ]
    )
    total = clip + best
    return np.divide(2 * clip * best, total, out=np.zeros_like(total), where=total > 0)


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.sum(one.astype(np.float64) * other, axis=-1)
