"""Examines the files of images: whether they are whole, their size, and what is unusual in them.

facts = examine(data, "a.jpg", apply_exif=True)
facts.fault                                      # why the image is left out; "" if it is kept
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

from flickr8k_tfds.image_formats import (
    ACROSS,
    FORMATS,
    PORTABLE,
    BadImage,
    check_whole,
    open_image,
    orientation,
)

_MODES = {
    "L": "greyscale",
    "1": "black and white",
    "RGBA": "with alpha",
    "LA": "with alpha",
    "PA": "with alpha",
}
_COLOUR = ("RGB", "P")


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What there is to know of the file of an image.

    Attributes:
      sha256: hash of the file's bytes; "" for a file that cannot be read.
      height, width: size in pixels of the image as it is stored, before it is made square.
      portable: whether the file's bytes can be stored unchanged.
      remarks: properties that are unusual but usable, such as "greyscale".
      fault: why the image cannot be used; "" if it can.
    """

    sha256: str
    height: int = 0
    width: int = 0
    portable: bool = False
    remarks: tuple[str, ...] = ()
    fault: str = ""


def sha256(data: bytes) -> str:
    """Returns the hash that splits and duplicates are based on: 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def examine(data: bytes, name: str, *, apply_exif: bool) -> ImageFacts:
    """Checks that an image is complete, and describes it.

    Args:
      data: bytes of the file.
      name: file name, whose suffix is compared with the format of the content.
      apply_exif: whether the image is to be stored as a viewer shows it.
    """
    try:
        image = open_image(data)
        height, width, mode = image.height, image.width, image.mode
        check_whole(image, data)
    except BadImage as error:
        return ImageFacts(sha256(data), fault=str(error))
    if image.format not in PORTABLE:
        height, width = image.height, image.width  # Pillow may have turned it in decoding
    turn = orientation(image)
    turns = apply_exif and turn not in (None, 1)
    if turns and turn in ACROSS:
        height, width = width, height
    remarks = tuple(_remarks(image.format or "", mode, name, turn, apply_exif))
    portable = image.format in PORTABLE and not turns
    return ImageFacts(sha256(data), height, width, portable, remarks)


def _remarks(
    format: str, mode: str, name: str, turn: int | None, apply_exif: bool
) -> Iterator[str]:
    suffix = "." + name.rpartition(".")[2].lower()
    if suffix not in FORMATS[format]:
        yield f"{format} content in a {suffix} file"
    if mode not in _COLOUR:
        yield _MODES.get(mode, mode if mode == "CMYK" else f"mode {mode}")
    if format not in PORTABLE:
        yield f"{format}, stored as PNG"
    if turn is None:
        yield "EXIF that cannot be read, which is ignored"
    elif turn != 1:
        yield "turned upright by EXIF" if apply_exif else "rotated by EXIF, which is ignored"
