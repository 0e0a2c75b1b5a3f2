"""Opens images of untrusted files, of the formats that are kept.

image = open_image(data)             # Pillow's image, not decoded yet; raises BadImage
decode(image)                        # raises BadImage for what is not whole
turned(rgb_or_grey16(image), orientation(image))    # the pixels that a viewer shows
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

MAX_PIXELS = 64_000_000
_MAX_SCANS = 100  # of a progressive JPEG, as in paligemma_lib

# Formats that are kept, by Pillow's name, with their suffixes. Telephones write MPO: a JPEG file
# with further images after the first.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jfif", ".mpo"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm"),
    "AVIF": (".avif",),  # where Pillow is built with it, as its own wheels are since 11.3
    "HEIF": (".heic", ".heif"),  # with pillow-heif
}
# Formats that every reader of TFDS decodes, and to the same pixels.
PORTABLE = ("JPEG", "MPO", "PNG")
_JPEG = ("JPEG", "MPO")

# Pillow's modes with more than 8 bits per pixel. PNG stores them with 16 bits.
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ACROSS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


class BadImage(Exception):
    """The bytes are not a complete and usable image; the message says why."""


def open_image(data: bytes) -> Image.Image:
    """Opens an image without decoding it.

    Args:
      data: bytes of a file of one of FORMATS.

    Raises:
      BadImage: the file is empty or of another format, or the image has more than MAX_PIXELS
        pixels.
    """
    if not data:
        raise BadImage("empty file")
    try:
        with _bad_unless_it_decodes():
            image = Image.open(io.BytesIO(data), formats=_readable())
    except Image.UnidentifiedImageError as error:
        raise BadImage(_unidentified(data)) from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(
            f"{image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS:,}"
        )
    return image


def decode(image: Image.Image) -> None:
    """Decodes an image in place. Raises BadImage if it is truncated or damaged."""
    with _bad_unless_it_decodes():
        image.load()


def check_whole(image: Image.Image, data: bytes) -> None:
    """Checks that an image decodes, as fast as possible; its pixels are of no use afterwards.

    Args:
      image: an image from `open_image`, not decoded.
      data: bytes of its file.

    Raises:
      BadImage: the image is truncated or damaged, would take minutes to decode, or has no known
        conversion to RGB.
    """
    if image.format in _JPEG:
        # Each scan of a progressive image may take as long as a whole image. FFDA marks a scan, and
        # does not occur in coded data.
        if image.info.get("progressive") and data.count(b"\xff\xda") > _MAX_SCANS:
            raise BadImage(f"more than {_MAX_SCANS} scans, encoders write 10: save it again")
        # Damage shows where libjpeg reads the coded coefficients, which it does for all of them
        # at any scale and in any colour space. This leaves the rest out: 40 % of the time.
        image.draft("L", (max(image.width // 8, 1), max(image.height // 8, 1)))
    if image.format == "PNG":  # verifies the checksums, which `load` ignores
        with _bad_unless_it_decodes():
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
    decode(image)
    if image.format not in PORTABLE:
        rgb_or_grey16(image)


def orientation(image: Image.Image) -> int | None:
    """Returns the EXIF orientation that is left to apply, 1 to 8; None if EXIF cannot be read.

    The image has to be decoded: Pillow turns images of some formats while it decodes them.
    """
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow may raise any exception for damaged bytes
        return None
    return found if found in _TURNS else 1


def turned(image: Image.Image, orientation: int | None) -> Image.Image:
    """Returns an image as a viewer shows it, given its EXIF orientation."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def rgb_or_grey16(image: Image.Image) -> Image.Image:
    """Converts a decoded image to mode RGB, or to I;16 if it has 16-bit grey levels.

    Alpha is dropped, so that the colours below it show. CMYK of a JPEG becomes RGB as TensorFlow
    converts it, which differs from Pillow.

    Raises:
      BadImage: the image has no known conversion, such as floating-point values have none.
    """
    if image.mode == "F":
        raise BadImage("floating-point values, whose range is not known: convert it to PNG")
    with _bad_unless_it_decodes():
        if image.mode in _DEEP:
            return image if image.mode == "I;16" else image.convert("I;16")
        if image.mode == "CMYK" and image.format in _JPEG:
            return _from_cmyk(image)
        return image if image.mode == "RGB" else image.convert("RGB")  # `convert` copies even RGB


def _from_cmyk(image: Image.Image) -> Image.Image:
    # Pillow inverts the values of every CMYK file, TensorFlow those of Adobe's only.
    ink = np.asarray(image) if "adobe" not in image.info else 255 - np.asarray(image)
    black = ink[..., 3].astype(np.uint16)
    rgb = np.stack([(ink[..., k] * black // 255).astype(np.uint8) for k in range(3)], axis=-1)
    return Image.fromarray(rgb)


@contextlib.contextmanager
def _bad_unless_it_decodes() -> Iterator[None]:
    try:
        yield
    except (BadImage, Image.UnidentifiedImageError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"more than the limit of {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow may raise any exception for damaged bytes
        raise BadImage(f"does not decode: {error}") from error


def _unidentified(data: bytes) -> str:
    # Bytes 4 to 12 are "ftyp" and the brand of the file: heic, heix, heim, ..., or mif1 and msf1.
    heic = data[4:8] == b"ftyp" and (data[8:10] == b"he" or data[8:12] in (b"mif1", b"msf1"))
    if heic and "HEIF" not in _readable():
        return "HEIC, which needs pip install pillow-heif: install it and build with --overwrite"
    return "not an image of a known format: convert it to JPEG or PNG"


@functools.cache
def _readable() -> tuple[str, ...]:
    """Returns those of FORMATS that Pillow can read here."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()  # registers all formats; naming another one would be a KeyError
    return tuple(name for name in FORMATS if name in Image.OPEN)
