"""Encoded images to model pixels: the one way for training, prediction and the app.

    pixels = decode_image(path.read_bytes(), size=224)       # float32[224, 224, 3] in [-1, 1]

JPEG, PNG, GIF, BMP and WebP. Grey becomes RGB, CMYK is converted, 16 bits become 8, what moves
gives its first frame, and transparency is dropped: the colours below it show. The image is
squashed to a square, bilinear and antialiased, as in PaliGemma's pre-training. JPEG's accurate
integer DCT gives the pixels that Pillow gives; TensorFlow's default differs by up to 23 levels.

In training, evaluation and prediction an image lies as it is stored, whatever its EXIF orientation
says, as in the reference. `apply_exif` is for where people see it upright, as in the web app.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from paligemma_lib.data.encoded import as_jpeg_or_png, exif_orientation

# EXIF orientation: after transposing for 5 to 8, which sides are reversed.
_LEFT_RIGHT, _UP_DOWN = (2, 3, 6, 7), (3, 4, 7, 8)


def decode_image(
    encoded: bytes, size: int, *, dtype: str = "float32", apply_exif: bool = False
) -> np.ndarray:
    """Decodes and resizes one image.

    Args:
      encoded: the bytes of an image file. TensorFlow refuses images of 2**29 pixels and more.
      size: S, the side of the result in pixels.
      dtype: "float32" for [-1, 1], or "uint8" for 0..255, cut off to whole levels.
      apply_exif: turn the image as its EXIF orientation says; the reference does not.

    Returns:
      float32[S, S, 3] or uint8[S, S, 3].

    Raises:
      ValueError: the bytes are no image, or a damaged one.
    """
    allow_memory_growth()
    orientation = exif_orientation(encoded) if apply_exif else 1
    try:
        return _decode(size, dtype)(as_jpeg_or_png(encoded), orientation).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"not a whole JPEG, PNG, GIF, BMP or WebP image: {len(encoded)} bytes that begin "
            f"with {encoded[:8]!r}. Replace the file, convert it to PNG, or remove it"
        ) from error


def to_pixels(
    encoded: tf.Tensor,
    *,
    size: int,
    dtype: str,
    orientation: tf.Tensor | None = None,
    box: tf.Tensor | None = None,
    flipped: tf.Tensor | None = None,
) -> tf.Tensor:
    """`decode_image` as TensorFlow operations.

    Args:
      encoded: string[], from `as_jpeg_or_png`.
      size: S.
      dtype: "float32" or "uint8".
      orientation: int32[], from `exif_orientation`; None for as it is stored.
      box: float32[4], the part to keep: top, left, height, width as fractions; None for all.
      flipped: bool[], whether to exchange left and right.

    Returns:
      float32[S, S, 3] or uint8[S, S, 3].
    """
    # `channels=3` has libjpeg and libpng convert grey, CMYK and palettes. `decode_image` of
    # TensorFlow would do the same with a DCT that differs from Pillow's.
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(encoded, channels=3),
    )
    # In this order: what is cropped and flipped is what a viewer would see.
    if orientation is not None:
        pixels = _turn(pixels, orientation)
    if box is not None:
        pixels = _crop(pixels, box)
    if flipped is not None:
        pixels = pixels[:, :: tf.where(flipped, -1, 1)]
    pixels = tf.ensure_shape(pixels, [None, None, 3])
    pixels = tf.cond(
        tf.reduce_all(tf.shape(pixels)[:2] == size),
        lambda: tf.cast(pixels, tf.float32),  # what resizing would give, in less time
        lambda: tf.image.resize(pixels, (size, size), method="bilinear", antialias=True),
    )
    pixels = tf.ensure_shape(pixels, [size, size, 3])
    # Antialiased resizing may leave [0, 255] by a little. A cast cuts off, as the reference's
    # preprocessing does; float32 keeps all.
    if dtype == "uint8":
        return tf.cast(tf.clip_by_value(pixels, 0, 255), tf.uint8)
    return pixels * (1 / 127.5) - 1


@functools.cache
def allow_memory_growth() -> None:
    """Keeps TensorFlow, which needs no GPU here, from taking all memory of all GPUs."""
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # TensorFlow is in use, and has what it took
            tf.config.experimental.set_memory_growth(gpu, True)


@functools.cache
def _decode(size: int, dtype: str) -> Callable[..., tf.Tensor]:
    # A graph, since that is what training runs: operation by operation, roundings could differ.
    @tf.function(
        input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)], autograph=False
    )
    def decode(encoded: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
        return to_pixels(encoded, size=size, dtype=dtype, orientation=orientation)

    return decode


def _turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    pixels = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    across = tf.where(tf.reduce_any(orientation == _LEFT_RIGHT), -1, 1)
    down = tf.where(tf.reduce_any(orientation == _UP_DOWN), -1, 1)
    return pixels[::down, ::across]


def _crop(pixels: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    sides = tf.shape(pixels)[:2]
    extent = tf.maximum(tf.cast(tf.round(box[2:] * tf.cast(sides, tf.float32)), tf.int32), 1)
    corner = tf.cast(tf.round(box[:2] * tf.cast(sides, tf.float32)), tf.int32)
    corner = tf.minimum(corner, sides - extent)
    return tf.slice(pixels, [corner[0], corner[1], 0], [extent[0], extent[1], 3])
