"""Images from strangers: checked in memory, before anything else sees them.

    image = check("beach.jpg", data)        # or raises Refused, with a sentence for the visitor

What is accepted is what the library decodes: JPEG, PNG, GIF, BMP and WebP; what moves is not. It
is decoded here once, by Pillow, so that the model's worker is only given whole images.

Telephones store photographs lying on their side, and say so in EXIF. Training and `paligemma
caption` take images as they are stored, as the reference does, and data sets are mostly upright
already. Here people see the image upright, so the preview is turned, and `paligemma_lib.serving`
turns what the model sees in the same way.
"""

import dataclasses
import io
import threading

from PIL import Image

from paligemma_lib.data.encoded import exif_orientation

MAX_BYTES = 20 << 20
MAX_PIXELS = 50_000_000
MAX_SCANS = 100  # of a progressive JPEG: each takes as long as a whole image, in a few bytes
MAX_NAME = 60  # characters
PREVIEW_SIDE = 640  # pixels

# Format -> the ends that names of such files have.
SUFFIXES = {
    "JPEG": ("jpg", "jpeg"),
    "PNG": ("png",),
    "GIF": ("gif",),
    "BMP": ("bmp",),
    "WEBP": ("webp",),
}
_BEGINNINGS = (  # where it stands, what it is, and what that means
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "an archive or an office document"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftypmif1", "a HEIC image"),
    (4, b"ftyp", "a video"),
)
_UPRIGHT = {  # EXIF orientation -> how the image is turned
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_one_at_a_time = threading.Lock()  # a large image takes hundreds of megabytes while decoded


class Refused(ValueError):
    """A file that is not taken; the message is for the visitor."""


@dataclasses.dataclass(frozen=True)
class Upload:
    """An image that can be decoded.

    Attributes:
      name: what the visitor called it, on one line; not escaped.
      encoded: the file.
      preview: a JPEG of at most 640 x 640 pixels, upright, without metadata.
      width, height: in pixels, upright.
      note: what the visitor should know about it, or "".
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
      Refused: it is too large, moves, is damaged, or is no image.
    """
    if not data:
        raise Refused("The file is empty.")
    if len(data) > MAX_BYTES:
        raise Refused(f"The file has {len(data) / 2**20:,.0f} MB; at most 20 are taken.")
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(SUFFIXES))
    except Image.DecompressionBombError as error:
        raise _too_large("more than 100 million") from error
    except Exception as error:  # a decoder may raise anything, given hostile bytes
        raise Refused(
            f"This is {_kind(data)}. What can be captioned are JPEG, PNG, GIF, BMP and WebP images."
        ) from error
    with image:
        # MPO is JPEG with more images behind the first, as telephones write it.
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        if (pixels := image.width * image.height) > MAX_PIXELS:
            raise _too_large(f"{pixels / 1e6:,.0f} million")
        try:
            moves = image.format != "MPO" and getattr(image, "is_animated", False)
            if kind == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
                raise ValueError("it would keep the decoder busy for hours")
            if not moves:
                with _one_at_a_time:
                    checked = _decode(image, one_line(name), data)
        except Exception as error:
            raise Refused(
                f"This begins like a {kind} image, but is damaged or cut off. Save or copy it anew."
            ) from error
    if moves:
        raise Refused("The image moves. Save one frame of it as PNG or JPEG.")
    if name.lower().rpartition(".")[2] in SUFFIXES[kind]:
        return checked
    return dataclasses.replace(checked, note=f"In truth a {kind} image, and read as such.")


def one_line(name: str) -> str:
    """A file's name without folders, and without what does not print."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = "".join(character if character.isprintable() else "?" for character in name)
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}…{name[-8:]}"


def _decode(image: Image.Image, name: str, data: bytes) -> Upload:
    width, height = image.size
    orientation = exif_orientation(data)
    if orientation >= 5:
        width, height = height, width
    image.draft("RGB", (2 * PREVIEW_SIDE, 2 * PREVIEW_SIDE))  # takes less memory for a JPEG
    if image.mode.startswith("I"):  # 16 bits
        image = image.point(lambda value: value / 256)
    small = image.convert("RGB")
    small.info = {}  # comments would be saved too
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    if orientation in _UPRIGHT:
        small = small.transpose(_UPRIGHT[orientation])
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return Upload(name, data, file.getvalue(), width, height)


def _too_large(pixels: str) -> Refused:
    return Refused(
        f"The image has {pixels} pixels; at most {MAX_PIXELS // 10**6} million are taken. Save a "
        "smaller copy."
    )


def _kind(data: bytes) -> str:
    for offset, beginning, kind in _BEGINNINGS:
        if data[offset:].startswith(beginning):
            return kind
    if b"<svg" in data[:4096].lower():
        return "an SVG drawing"
    try:
        data[:4096].decode()
    except UnicodeDecodeError as error:
        if error.start < min(len(data), 4096) - 3:  # or else a character was cut in two
            return "not an image, or a damaged one"
    return "a text file" if b"\0" not in data[:4096] else "not an image, or a damaged one"
