"""Checks the arrays that the model is given: images in another range, text of another vocabulary.

    check_images("generate", images, size=224)
    check_batch("train step", batch, size=224, vocab_size=257_152)

Decoding and training look at NumPy arrays before they go to a device, and so does
`sharding.put_batch`. Steps check arrays that are on a device already for dtype and shape alone,
since looking at values would wait for the device. `batch.check` checks everything else that the
contract says of a batch.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from paligemma_lib.value_ranges import CURE, check_ids, check_pixels, looked_at


def check_images(
    what: str, images: np.ndarray | jax.Array, size: int, *, wait: bool = False
) -> None:
    """Checks images that the model is given.

    Args:
      what: who was given them, for the message.
      images: float[B, S, S, 3] in [-1, 1], or uint8[B, S, S, 3].
      size: S, in pixels.
      wait: whether to wait for a device, to look at images that are on it.

    Raises:
      ValueError: images of another shape, dtype or range. The message says which was found.
    """
    if images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise ValueError(
            f"{what}: images have the shape {images.shape}, expected (B, {size}, {size}, 3): "
            "resize them, or use a model with another image_size"
        )
    if images.dtype == np.uint8:
        return
    if not jax.numpy.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"{what}: images are {images.dtype}{_range_told(images)}, expected float32 in "
            f"[-1, 1], or uint8: {CURE}"
        )
    # Arrays of several processes are not looked at: each process sees a part of them alone.
    if isinstance(images, jax.Array) and not (wait and images.is_fully_addressable):
        return
    check_pixels(what, images)


def check_batch(
    what: str, batch: Mapping[str, Any], size: int, vocab_size: int, *, signed: bool = False
) -> None:
    """Checks the arrays of a batch that a train or an eval step is given.

    Args:
      what: who was given it, for the message.
      batch: arrays of the contract in `paligemma_lib.batch`.
      size: S, in pixels.
      vocab_size: number of token ids.
      signed: whether weights may be negative.

    Raises:
      ValueError: an array is missing, or has another shape, dtype or range.
    """
    names = ("image", "text", "segment", "position", "loss_weight")
    if missing := [name for name in names if name not in batch]:
        raise ValueError(f"{what}: the batch has no {', '.join(missing)}: see paligemma_lib.batch")
    if strange := [name for name in names if not isinstance(batch[name], np.ndarray | jax.Array)]:
        kind = type(batch[strange[0]]).__name__
        raise ValueError(f"{what}: {strange[0]} is of type {kind}, expected an array")
    image, text, *others = (batch[name] for name in names)
    check_images(what, image, size)
    shape = text.shape
    for name, array in zip(names[1:], (text, *others), strict=True):
        wanted = np.floating if name == "loss_weight" else np.integer
        if not jax.numpy.issubdtype(array.dtype, wanted):
            kind = "float32" if wanted is np.floating else "int32"
            raise ValueError(f"{what}: {name} is {array.dtype}, expected {kind}")
        if len(array.shape) != 2 or array.shape != shape or len(array) != len(image):
            raise ValueError(
                f"{what}: {name} has the shape {array.shape} with text {shape} and "
                f"{len(image)} images, expected [{len(image)}, T] for all text arrays"
            )
    # These are some ten thousand numbers, so all of them are looked at.
    if isinstance(text, np.ndarray):
        check_ids(what, text, vocab_size)
    weight = batch["loss_weight"]
    if not isinstance(weight, np.ndarray):
        return
    fine = np.isfinite(weight) & (signed | (weight >= 0))
    if not fine.all():
        row, column = np.argwhere(~fine)[0]
        raise ValueError(
            f"{what}: loss_weight is {weight[row, column]} in example {row}, position {column}, "
            f"expected finite numbers{'' if signed else ' of at least 0'}"
        )


def _range_told(images: np.ndarray | jax.Array) -> str:
    if not isinstance(images, np.ndarray) or images.size == 0 or images.dtype.kind not in "iu":
        return ""
    return " from {:g} to {:g}".format(*looked_at(images))
