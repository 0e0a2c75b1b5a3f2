"""Decodes and resizes images to model pixels, identically in training, prediction and the app.

    pixels = decode_image(path.read_bytes(), size=224)       # float32[224, 224, 3] in [-1, 1]

The formats are JPEG, PNG, GIF, BMP, WebP, TIFF, PPM, AVIF, and HEIC if pillow-heif is installed.
Grey and CMYK become RGB, and 16 bits become 8. Of several frames, the first is used. Transparency
is dropped, so that the colours below it show. The image is resized to a square without keeping its
aspect ratio, bilinear and antialiased, as in PaliGemma's pre-training. The accurate integer DCT of
JPEG gives the same pixels as Pillow; TensorFlow's default DCT differs by up to 23 levels.

Images are upright everywhere: their EXIF orientation is applied, as every viewer does. The
reference uses images as they are stored, which `apply_exif=False` gives.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from paligemma_lib.data.argument_checks import MAX_SIDE, check_choice, check_whole
from paligemma_lib.data.encoded import as_jpeg_or_png, exif_orientation, needs_heif

# EXIF orientations that need a flip of left and right, or of top and bottom. Orientations 5 to 8
# are transposed first: 6, a rotation by 90 degrees, is a transposition and a left-right flip.
_LEFT_RIGHT, _UP_DOWN = (2, 3, 6, 7), (3, 4, 7, 8)


def decode_image(
    encoded: bytes, size: int, *, dtype: str = "float32", apply_exif: bool = True
) -> np.ndarray:
    """Decodes and resizes one image.

    Args:
      encoded: bytes of an image file, within the bounds of `image_bounds`.
      size: S, the side of the result in pixels.
      dtype: "float32" for values in [-1, 1], or "uint8" for 0..255, truncated to whole levels.
      apply_exif: whether to apply the EXIF orientation; the reference does not. That of TIFF and
        HEIC is always applied, by Pillow.

    Returns:
      float32[S, S, 3] or uint8[S, S, 3].

    Raises:
      ValueError: the bytes are not an image, or the image is damaged, or too large or too slow to
        decode: the message continues "the image is". Or an argument is out of range.
    """
    size = check_whole("size", size, 1, MAX_SIDE)
    check_choice("dtype", dtype, ("float32", "uint8"))
    allow_memory_growth()
    usual = as_jpeg_or_png(encoded)
    orientation = exif_orientation(usual) if apply_exif else 1
    try:
        return _decode(size, dtype)(tf.constant(usual), tf.constant(orientation)).numpy()
    except Exception as error:  # TensorFlow has several for damaged bytes
        raise ValueError(
            "not a complete JPEG, PNG, GIF, BMP, WebP, TIFF, PPM, AVIF or HEIC image: "
            f"{len(encoded)} bytes that begin with {encoded[:12]!r}. Replace the file, convert it "
            f"to PNG, or remove it{'; HEIC needs pip install pillow-heif' * needs_heif(encoded)}"
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
    """Decodes and resizes one image with TensorFlow operations, as `decode_image` does.

    Args:
      encoded: string[], from `as_jpeg_or_png`.
      size: S.
      dtype: "float32" or "uint8".
      orientation: int32[], from `exif_orientation`; None to use the image as it is stored.
      box: float32[4], the crop: top, left, height, width as fractions; None for the whole image.
      flipped: bool[], whether to exchange left and right.

    Returns:
      float32[S, S, 3] or uint8[S, S, 3].
    """
    # With `channels=3`, libjpeg and libpng convert grey, CMYK and palettes to RGB. The function
    # `tf.io.decode_image` does so too, but its DCT differs from Pillow's.
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(encoded, channels=3),
    )
    # The orientation comes first, so that crop and flip apply to the image as a viewer shows it.
    if orientation is not None:
        pixels = _turn(pixels, orientation)
    if box is not None:
        pixels = _crop(pixels, box)
    if flipped is not None:
        pixels = pixels[:, :: tf.where(flipped, -1, 1)]
    pixels = tf.ensure_shape(pixels, [None, None, 3])
    pixels = tf.cond(
        tf.reduce_all(tf.shape(pixels)[:2] == size),
        lambda: tf.cast(pixels, tf.float32),  # the same values as resizing gives, but faster
        lambda: tf.image.resize(pixels, (size, size), method="bilinear", antialias=True),
    )
    pixels = tf.ensure_shape(pixels, [size, size, 3])
    # Antialiased resizing may exceed [0, 255] slightly. For uint8, values are clipped, and the cast
    # truncates, as in the reference's preprocessing. For float32, values stay as they are.
    if dtype == "uint8":
        return tf.cast(tf.clip_by_value(pixels, 0, 255), tf.uint8)
    return pixels * (1 / 127.5) - 1


@functools.cache
def allow_memory_growth() -> None:
    """Prevents TensorFlow, which needs no GPU here, from allocating all memory of all GPUs."""
    for gpu in tf.config.list_physical_devices("GPU"):
        # RuntimeError: TensorFlow has already initialized the GPU, so its allocation is final.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)


@functools.cache
def _decode(size: int, dtype: str) -> Callable[..., tf.Tensor]:
    # Training decodes in a graph, so this does too: eager execution could round differently. Traced
    # here, and not at the first call: a `tf.function` takes a lock in each call, and a thread that
    # dies while it holds it has all others wait for ever.
    @tf.function(
        input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)], autograph=False
    )
    def decode(encoded: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
        return to_pixels(encoded, size=size, dtype=dtype, orientation=orientation)

    return decode.get_concrete_function()


def _turn(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    pixels = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    across = tf.where(tf.reduce_any(orientation == _LEFT_RIGHT), -1, 1)
    down = tf.where(tf.reduce_any(orientation == _UP_DOWN), -1, 1)
    return pixels[::down, ::across]


def _crop(pixels: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    # A crop has at least one pixel per side. Corner and extent are rounded separately, so together
    # they may exceed the image by one pixel; then the corner moves back.
    sides = tf.shape(pixels)[:2]
    extent = tf.maximum(tf.cast(tf.round(box[2:] * tf.cast(sides, tf.float32)), tf.int32), 1)
    corner = tf.cast(tf.round(box[:2] * tf.cast(sides, tf.float32)), tf.int32)
    corner = tf.minimum(corner, sides - extent)
    return tf.slice(pixels, [corner[0], corner[1], 0], [extent[0], extent[1], 3])
