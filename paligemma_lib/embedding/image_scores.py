"""Scores captions against their images: CLIPScore, and RefCLIPScore with references.

images = {"dog.jpg": Path("dog.jpg").read_bytes}
scores = score_images(embedder, images, {"dog.jpg": "a dog"}, {"dog.jpg": ["A dog runs."]})
scores.corpus["CLIPScore"], scores.intervals()["RefCLIPScore"]
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import PIL.Image

from paligemma_lib.data.encoded import as_jpeg_or_png, upright
from paligemma_lib.embedding.embedder import Embedder
from paligemma_lib.metrics import ImageId, Scores
from paligemma_lib.metrics.caption_checks import check_captions, check_same_images
from paligemma_lib.metrics.clip_score import PREFIX, clip_scores, ref_clip_scores

NAMES = ("CLIPScore", "RefCLIPScore")

_BATCH = 32  # images in memory at a time


def score_images(
    embedder: Embedder,
    images: Mapping[ImageId, Callable[[], bytes]],
    captions: Mapping[ImageId, str],
    references: Mapping[ImageId, Sequence[str]],
) -> Scores:
    """Returns CLIPScore and RefCLIPScore of captions.

    Args:
      embedder: the model; scores of different models are not comparable.
      images: for each image, a function that returns the bytes of its file.
      captions: for each of the same images, one caption.
      references: for each of the same images, its human-written captions.

    Raises:
      ValueError: the image ids differ, a caption is not text, an image cannot be decoded, or the
        embedder returns what is not finite.
      OSError: an image cannot be read.
    """
    check_captions(references, captions)
    check_same_images(images, captions, "the images", "the captions")
    image_ids = tuple(captions)
    owners = [image for image in image_ids for _ in references[image]]
    said = _finite(embedder.texts([PREFIX + captions[i] for i in image_ids]), "caption", image_ids)
    texts = [PREFIX + each for image in image_ids for each in references[image]]
    ends = np.cumsum([len(references[image]) for image in image_ids])
    told = np.split(_finite(embedder.texts(texts), "reference", owners), ends[:-1])
    seen = []
    for at in range(0, len(image_ids), _BATCH):
        part = image_ids[at : at + _BATCH]
        vectors = embedder.images([_decoded(image, images[image]) for image in part])
        seen.append(_finite(vectors, "image", part))
    clip = clip_scores(np.concatenate(seen), said)
    both = ref_clip_scores(clip, said, told)
    statistics = np.stack([clip, both, np.ones(len(image_ids))], axis=1)
    return Scores.of(NAMES, image_ids, statistics, _means)


def _finite(vectors: np.ndarray, what: str, images: Sequence[ImageId]) -> np.ndarray:
    """Returns the vectors. Raises ValueError if one is NaN or infinite, with the image it is of."""
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if wrong.size:
        raise ValueError(
            f"{wrong.size:,} of {len(vectors):,} vectors are NaN or infinite, the first is of the "
            f"{what} of {images[int(wrong[0])]!r}: use another embedder, or its weights in float32"
        )
    return vectors


def _decoded(image_id: ImageId, read: Callable[[], bytes]) -> PIL.Image.Image:
    """Returns an image upright and in RGB."""
    try:
        # Bounded, and converted where Pillow's own reading would be unsafe or slow.
        encoded = as_jpeg_or_png(read())
        with PIL.Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")) as image:
            return upright(image).convert("RGB")
    except (ValueError, SyntaxError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the file system; it names the file
        raise ValueError(f"{image_id!r} cannot be decoded as an image: {error}") from error


def _means(sums: np.ndarray) -> np.ndarray:
    """Converts float64[..., M + 1] sums, of which the last counts, to float64[..., M] means."""
    return sums[..., :-1] / sums[..., -1:]
