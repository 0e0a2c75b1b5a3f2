"""Verifies an image by decoding it, describes it, and resizes it to a square PNG.

image = decode(data)                              # raises BadImage for what is not whole
facts = describe(image, data, "a.jpg")            # sides, digest, remarks
png = square_png(image, side=224)
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import struct

import numpy as np
from PIL import ExifTags, Image

MAX_PIXELS = 64_000_000
# Formats that every reader of the data set decodes to height x width x 3. Phones write MPO: a JPEG
# file with further images after the first.
_FORMATS = ("JPEG", "PNG", "MPO")
# Errors that Pillow's plugins raise for damaged files.
_PILLOW_ERRORS = (OSError, ValueError, TypeError, KeyError, SyntaxError, MemoryError, struct.error)
_SUFFIXES = {"PNG": ("png",), "JPEG": ("jpg", "jpeg"), "MPO": ("jpg", "jpeg", "mpo")}


class BadImage(Exception):
    """The bytes are not a complete and usable image; the message says why."""


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """Facts of an image that decodes.

    Attributes:
      height, width: size in pixels as stored, before any EXIF rotation.
      sha256: hash of the file's bytes.
      remarks: properties that are unusual but usable, such as "greyscale".
    """

    height: int
    width: int
    sha256: str
    remarks: tuple[str, ...]


def sha256(data: bytes) -> str:
    """Returns the hash that splits and duplicates are based on: 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes) -> Image.Image:
    """Decodes a complete image.

    Args:
      data: bytes of a JPEG or PNG file.

    Raises:
      BadImage: the file is empty, of another format, truncated or damaged, or the image has more
        than MAX_PIXELS pixels.
    """
    if not data:
        raise BadImage("empty file")
    try:
        image = Image.open(io.BytesIO(data))
        if image.format not in _FORMATS:
            raise BadImage(f"format {image.format}, only JPEG and PNG are kept: convert it")
        if image.width * image.height > MAX_PIXELS:
            raise BadImage(
                f"{image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS:,}"
            )
        if image.format == "PNG":  # verifies the checksums, which `load` ignores
            Image.open(io.BytesIO(data)).verify()
        image.load()
    except Image.UnidentifiedImageError as error:
        raise BadImage("not an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"more than the limit of {MAX_PIXELS:,} pixels") from error
    except _PILLOW_ERRORS as error:
        raise BadImage(f"does not decode: {error}") from error
    return image


def describe(image: Image.Image, data: bytes, name: str) -> ImageFacts:
    """Returns the facts of a decoded image.

    Args:
      image: the decoded image.
      data: bytes of its file.
      name: file name, whose suffix is compared with the format of the content.
    """
    remarks = []
    suffix = name.rpartition(".")[2].lower()
    if suffix not in _SUFFIXES[image.format or ""]:
        remarks.append(f"{image.format} content in a .{suffix} file")
    if image.mode not in ("RGB", "P"):
        names = {"L": "greyscale", "1": "black and white", "CMYK": "CMYK", "RGBA": "with alpha"}
        remarks.append(names.get(image.mode, f"mode {image.mode}"))
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            remarks.append("rotated by EXIF, which is ignored")
    except _PILLOW_ERRORS:
        remarks.append("EXIF that cannot be read, which is ignored")
    return ImageFacts(image.height, image.width, sha256(data), tuple(remarks))


def square_png(image: Image.Image, side: int) -> bytes:
    """Resizes an image to a square, as training would, and encodes it as PNG.

    The resize is that of the PaliGemma report (arXiv 2407.07726): bilinear with antialiasing, and
    without keeping the aspect ratio. Alpha is dropped, EXIF is ignored, and values are rounded to
    whole levels once.

    Args:
      image: the decoded image.
      side: height and width of the result in pixels.

    Returns:
      Bytes of an RGB PNG of uint8[side, side, 3].
    """
    square = _to_rgb(image).resize((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    # Not compressed: the file is 1.6 times larger than at level 1, but decodes 2.4 times faster,
    # and fast decoding is the purpose of the square configs.
    square.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: take the high byte, where Pillow would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")  # `convert` copies even RGB
