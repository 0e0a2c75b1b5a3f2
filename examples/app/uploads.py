"""Checks untrusted images in memory, before any other code reads them.

    image = check("beach.jpg", data)        # or raises Refused, with a sentence for the visitor

Accepted are the formats that the library decodes. Of an animation, its first frame is used, as in
the library. Each image is decoded once here, so that the model's worker receives only complete
images.

Phones store photographs sideways, and record the rotation in EXIF. The preview is upright, as is
what the library gives to the model.
"""

import dataclasses
import io
import threading

from PIL import Image

from paligemma_lib.data.encoded import (
    FORMATS,
    as_jpeg_or_png,
    needs_heif,
    readable_formats,
    upright,
    upright_size,
)
from paligemma_lib.data.image_bounds import check_bounds, check_pixels
from paligemma_lib.runtime.visible_text import visible

MAX_BYTES = 20 << 20
MAX_NAME = 60  # characters
PREVIEW_SIDE = 640  # pixels

# Format -> suffixes of file names, for those that can be read here.
SUFFIXES = {
    format: tuple(suffix.lstrip(".") for suffix in FORMATS[format]) for format in readable_formats()
}
_BEGINNINGS = (  # offset, bytes there, what the file is; the first match counts
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "an archive or an office document"),
    (4, b"ftyp", "a video"),
)
_one_at_a_time = threading.Lock()  # decoding a large image takes hundreds of MB


class Refused(ValueError):
    """A file is not accepted; the message is for the visitor."""


@dataclasses.dataclass(frozen=True)
class Upload:
    """An image that can be decoded.

    Attributes:
      name: file name from the visitor, on one line; not escaped.
      encoded: bytes of the file.
      preview: a JPEG of at most 640 x 640 pixels, upright, without metadata.
      width, height: size in pixels, upright.
      note: a hint for the visitor, or "".
    """

    name: str
    encoded: bytes
    preview: bytes
    width: int
    height: int
    note: str = ""


def check(name: str, data: bytes) -> Upload:
    """Decodes a file once, within limits.

    Raises:
      Refused: the file is too large, damaged, or not an image.
    """
    if not data:
        raise Refused("The file is empty.")
    if len(data) > MAX_BYTES:
        raise Refused(f"The file has {len(data) / 2**20:,.0f} MB; at most 20 MB are accepted.")
    try:
        check_bounds(data)
    except ValueError as error:
        raise Refused(f"The image is {error}.") from error
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(SUFFIXES))
    except Image.DecompressionBombError as error:
        raise Refused("The image has too many pixels to decode. Save a smaller copy.") from error
    except Exception as error:  # a decoder may raise anything, given hostile bytes
        raise Refused(f"This is {_kind(data)}. Accepted are {', '.join(SUFFIXES)}.") from error
    with image:
        # MPO, which phones write, is a JPEG with further images after the first. These count as
        # frames, but it is not animated.
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        try:
            check_pixels(*image.size)
        except ValueError as error:
            raise Refused(f"The image is {error}.") from error
        notes = []
        if name.lower().rpartition(".")[2] not in SUFFIXES[kind]:
            notes.append(f"Actually a {kind} image, and read as one.")
        try:
            if image.format != "MPO" and getattr(image, "is_animated", False):
                notes.append("Of several frames, the first is used.")
            with _one_at_a_time:
                return _decode(one_line(name), data, " ".join(notes))
        except Exception as error:
            raise Refused(
                f"This begins like a {kind} image, but is damaged or truncated. Save or copy it "
                "again."
            ) from error


def one_line(name: str) -> str:
    """Returns a file name without folders and without characters that act on what shows it."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = visible(name)
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}…{name[-8:]}"


def _decode(name: str, data: bytes, note: str) -> Upload:
    """Raises an exception of any type if the image is damaged."""
    # The model sees the pixels of this file, so the preview is made of it, too. It is empty for an
    # image that Pillow does not decode.
    usual = as_jpeg_or_png(data)
    with Image.open(io.BytesIO(usual), formats=("JPEG", "PNG")) as image:
        image.draft("RGB", (2 * PREVIEW_SIDE, 2 * PREVIEW_SIDE))  # takes less memory for a JPEG
        # `convert` would clip 16 bits at 255.
        turned = upright(image)
        deep = turned.mode.startswith("I")
        small = (turned.point(lambda value: value / 256) if deep else turned).convert("RGB")
    small.info = {}  # or `save` would write its comments too
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return Upload(name, data, file.getvalue(), *upright_size(usual), note)


def _kind(data: bytes) -> str:
    if needs_heif(data):
        return "a HEIC image, which needs pillow-heif here"
    for offset, beginning, kind in _BEGINNINGS:
        if data[offset:].startswith(beginning):
            return kind
    if b"<svg" in data[:4096].lower():
        return "an SVG drawing"
    try:
        data[:4096].decode()
    except UnicodeDecodeError as error:
        if error.start < min(len(data), 4096) - 3:  # the slice may cut the last character
            return "not an image, or a damaged one"
    return "a text file" if b"\0" not in data[:4096] else "not an image, or a damaged one"
