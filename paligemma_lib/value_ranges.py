"""Checks in what range values of a batch are, before they go to a device.

    check_pixels("put_batch", images)
    check_ids("prefill", text, vocab_size=257_152)

An array in another range is no error for a matrix product: it gives nonsense, or NaN much later.
"""

from typing import Any

import numpy as np

# Antialiased resizing overshoots [-1, 1] by up to a fifth at sharp edges. ImageNet's normalization
# reaches 2.6, and unscaled pixels 255.
_LARGEST = 1.5
_LOOKED_AT = 16  # rows and columns of an image
CURE = (
    "scale floats from 0 to 255 by x / 127.5 - 1, floats from 0 to 1 by 2 * x - 1, and give whole "
    "numbers from 0 to 255 as uint8"
)


def check_pixels(what: str, images: Any) -> None:
    """Raises ValueError if images, float[B, S, S, 3], are in another range than [-1, 1].

    Args:
      what: who was given them, for the message.
      images: an array of NumPy, or one of JAX, whose device is waited for.
    """
    if images.size == 0:
        return
    # 16 x 16 pixels of each image say in what range it is: all of them are black only where all of
    # the image is, nearly. That takes 0.02 ms for 16 images, where all pixels would take 10 ms.
    # NaN is left to what follows: a train step with it has no effect and is counted, and a caption
    # of it is an error.
    low, high = looked_at(images)
    if low < -_LARGEST or high > _LARGEST:
        raise ValueError(
            f"{what}: images have values from {low:g} to {high:g}, expected -1 to 1: {CURE}"
        )


def check_ids(what: str, text: np.ndarray, vocab_size: int | None = None) -> None:
    """Raises ValueError unless all token ids, int[B, T], are in the vocabulary.

    Args:
      what: who was given them, for the message.
      text: the ids.
      vocab_size: number of token ids; None: not known, so that only negative ones are refused.
    """
    if not text.size or (text.min() >= 0 and (vocab_size is None or text.max() < vocab_size)):
        return
    wrong = (text < 0) if vocab_size is None else (text < 0) | (text >= vocab_size)
    row, column = np.argwhere(wrong)[0]
    expected = "at least 0" if vocab_size is None else f"0 to {vocab_size - 1}"
    raise ValueError(
        f"{what}: text has the id {text[row, column]} in example {row}, position {column}, "
        f"expected {expected}: what is not to be learned (-100, elsewhere) keeps its id and gets "
        "the loss_weight 0"
    )


def looked_at(images: Any) -> tuple[float, float]:
    """Returns the lowest and the highest of the values of images that are looked at."""
    step = max(1, images.shape[1] // _LOOKED_AT)
    seen = np.asarray(images[:, ::step, ::step], np.float32)
    return float(np.fmin.reduce(seen, axis=None)), float(np.fmax.reduce(seen, axis=None))
