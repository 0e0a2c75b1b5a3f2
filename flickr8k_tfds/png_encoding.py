"""Encodes an image as a PNG, where the bytes of its file are not stored as they are.

png = as_png(data, side=None, apply_exif=True)   # the pixels that a viewer shows
png = as_png(data, side=224, apply_exif=True)   # the same, resized to 224 x 224
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from flickr8k_tfds.image_formats import decode, open_image, orientation, rgb_or_grey16, turned


def as_png(data: bytes, *, side: int | None, apply_exif: bool) -> bytes:
    """Encodes an image that has passed `examine` as a PNG.

    Args:
      data: bytes of the file.
      side: None for the pixels of the file; a number to resize them to side x side, as training
        would. The resize is that of the PaliGemma report (arXiv 2407.07726): bilinear with
        antialiasing, and without keeping the aspect ratio. Values are rounded to whole levels once.
      apply_exif: whether to apply the EXIF orientation.

    Returns:
      Bytes of a PNG of uint8[height, width, 3], or of uint16[height, width] for 16-bit grey levels
      that are not resized. It has no EXIF data. Alpha is dropped.
    """
    image = open_image(data)
    decode(image)
    kept = turned(rgb_or_grey16(image), orientation(image) if apply_exif else 1)
    if side is not None:
        kept = _to_rgb(kept).resize((side, side), Image.Resampling.BILINEAR)
    # A colour profile is for the colours of the file: of ink or grey levels, it has to go.
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
    kept.info.clear()  # Pillow would write the colour that stands for transparency
    buffer = io.BytesIO()
    # Squares are not compressed: the file is 1.6 times larger than at level 1, but decodes 2.4
    # times faster, and fast decoding is what they are for.
    level = 1 if side is None else 0
    kept.save(buffer, "PNG", compress_level=level, icc_profile=profile)
    return buffer.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    high = np.asarray(image) >> 8  # the high byte, where Pillow would clip
    return Image.fromarray(high.astype(np.uint8)).convert("RGB")
