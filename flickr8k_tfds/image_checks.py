"""One image: verified by decoding it, and resized to a square PNG.

image = decode(data)                              # raises BadImage for what is not whole
image = describe(image, data, "a.jpg")
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
# What every reader of the data set decodes to height x width x 3. Phones write MPO: a JPEG file
# with more images behind the first.
_FORMATS = ("JPEG", "PNG", "MPO")
# What Pillow's plugins raise for damaged files.
_PILLOW_ERRORS = (OSError, ValueError, TypeError, KeyError, SyntaxError, MemoryError, struct.error)
_SUFFIXES = {"PNG": ("png",), "JPEG": ("jpg", "jpeg"), "MPO": ("jpg", "jpeg", "mpo")}


class BadImage(Exception):
    """The bytes are not a whole image that can be used; the message says why."""


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What is known of an image that decodes.

    Attributes:
      height, width: in pixels as stored, before any EXIF rotation.
      sha256: of the file's bytes.
      remarks: what is unusual but usable, such as "greyscale".
    """

    height: int
    width: int
    sha256: str
    remarks: tuple[str, ...]


def sha256(data: bytes) -> str:
    """The content hash that splits and duplicates go by: 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes) -> Image.Image:
    """Decodes an image whole.

    Args:
      data: the bytes of a JPEG or PNG file.

    Raises:
      BadImage: empty, of another format, truncated, damaged, or of more than MAX_PIXELS.
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
        if image.format == "PNG":  # checksums, which Pillow's decoding passes over
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
    """What is known of an image.

    Args:
      image: the decoded image.
      data: the bytes of its file.
      name: its file name, whose suffix is held against the content.
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

    Bilinear with antialiasing, without keeping the aspect ratio, alpha dropped, EXIF ignored:
    the resize of the PaliGemma report (arXiv 2407.07726), rounded to whole levels once.

    Args:
      image: the decoded image.
      side: height and width of the result in pixels.

    Returns:
      The bytes of an RGB PNG of uint8[side, side, 3].
    """
    square = _to_rgb(image).resize((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    # Not compressed: 1.6 times larger than at level 1, and decoded 2.4 times faster, which is what
    # this form is for.
    square.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: keep the high byte, where Pillow would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy a large one
