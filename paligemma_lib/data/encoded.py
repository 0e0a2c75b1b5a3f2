"""Prepares the bytes of an image file for decoding by TensorFlow, with Pillow.

    encoded = as_jpeg_or_png(path.read_bytes())
    orientation = exif_orientation(encoded)

TensorFlow decodes three formats differently from Pillow. It reads the palette indices of a BMP as
grey levels, and any order of its channels as BGR. It takes the first frame of a GIF for the whole
canvas, and shows its transparent pixels as black. It does not support transparent or animated WebP.
So files of these formats are converted to PNG, and those of formats that only Pillow reads. JPEG
and PNG files stay as they are.
"""

import contextlib
import functools
import io

import PIL.Image

from paligemma_lib.data.image_bounds import (
    START_OF_SCAN,
    check_bounds,
    check_pixels,
    jpeg_segments,
    png_chunks,
)

# All formats, by Pillow's name of the format, with their suffixes.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm"),
    "AVIF": (".avif",),  # where Pillow is built with it, as its own wheels are since 11.3
    "HEIF": (".heic", ".heif"),  # with pillow-heif
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

_AS_THEY_ARE = ("JPEG", "PNG")
_JPEG_OR_PNG = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # their first bytes

# Pillow's decoders in Python, of PPM with numbers as text and BMP with runs: about 0.2 s a MB.
_SLOW, _MAX_SLOW_BYTES = ("ppm_plain", "bmp_rle"), 8 << 20

_ORIENTATION = 0x0112  # the tag of EXIF
_APP1 = 0xE1  # JPEG's marker of EXIF or XMP
_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # chunks that may have an orientation

_TURNS = {  # orientation -> what makes an image upright
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}

# Pillow's modes with more than 8 bits per pixel. PNG stores them with 16 bits.
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def as_jpeg_or_png(encoded: bytes) -> bytes:
    """Converts an image to a format that TensorFlow decodes to the same pixels as Pillow.

    Args:
      encoded: the bytes of a file of one of FORMATS.

    Returns:
      The bytes of a JPEG or PNG file unchanged, even if the file is damaged. The first frame of
      another file as a PNG, RGB or 16-bit grey, with the same EXIF orientation. b"" if Pillow
      cannot decode the file: TensorFlow might still decode it, but to wrong colours, and it rejects
      b"".

    Raises:
      ValueError: the image is too large or too slow to decode, see `check_bounds`.
    """
    check_bounds(encoded)
    if encoded.startswith(_JPEG_OR_PNG):
        return encoded
    # Pillow may raise any exception for damaged bytes.
    with contextlib.ExitStack() as stack:
        try:
            opened = PIL.Image.open(io.BytesIO(encoded), formats=converted_formats())
            image = stack.enter_context(opened)
        except Exception:
            return b""
        check_pixels(*image.size)
        if len(encoded) > _MAX_SLOW_BYTES and image.tile and image.tile[0][0] in _SLOW:
            raise ValueError("too slow to decode: save it as PNG")
        try:
            # Floats have no range that is known, so any conversion to levels would be a guess.
            return as_png(image) if image.mode != "F" else b""
        except Exception:
            return b""


def as_png(image: PIL.Image.Image) -> bytes:
    """Returns an image as a PNG of the same pixels, RGB or 16-bit grey; alpha is dropped.

    An EXIF orientation is kept. Pillow applies that of a TIFF or HEIC file itself, and removes it.
    """
    image.load()  # before the orientation is read, which loading a TIFF changes
    exif = PIL.Image.Exif()
    exif[_ORIENTATION] = orientation = orientation_of(image)
    file = io.BytesIO()
    # `convert` would clip 16-bit values at 255. TensorFlow scales them to 8 bits when it decodes.
    kept = image if image.mode in _DEEP else image.convert("RGB")
    kept = kept.convert("I;16") if kept.mode == "I" else kept  # Pillow 13 saves no "I" as PNG
    kept.save(file, "PNG", compress_level=1, exif=exif if orientation != 1 else None)
    return file.getvalue()


def exif_orientation(encoded: bytes) -> int:
    """Returns the EXIF orientation of a JPEG or PNG, 1 to 8; 1 if it has none that can be read.

    Args:
      encoded: from `as_jpeg_or_png`.
    """
    if not _has_metadata(encoded):
        return 1
    try:
        check_bounds(encoded)  # of a PNG, Pillow finds EXIF behind the pixels, and decodes these
        with PIL.Image.open(io.BytesIO(encoded), formats=_AS_THEY_ARE) as image:
            return orientation_of(image)
    except Exception:  # Pillow may raise any exception; decoding reports damaged bytes later
        return 1


def orientation_of(image: PIL.Image.Image) -> int:
    """Returns the EXIF orientation of an image, 1 to 8; 1 if it has none that can be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow may raise any exception for damaged metadata
        return 1
    # It may be stored as a fraction or a float.
    return int(orientation) if orientation in range(1, 9) else 1


def upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Returns an image as a viewer shows it; metadata that cannot be read are ignored."""
    image.load()  # before the orientation is read, which loading a TIFF changes
    orientation = orientation_of(image)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _has_metadata(encoded: bytes) -> bool:
    """Returns whether a JPEG or PNG has metadata that may have an orientation.

    Most files have none. For these, Pillow takes 0.1 ms more, or decodes a whole PNG, since the
    chunk may stand at its end.
    """
    if encoded.startswith(b"\xff\xd8"):
        kinds = (marker for marker, _ in jpeg_segments(encoded))
        return next((kind for kind in kinds if kind in (_APP1, START_OF_SCAN)), 0) == _APP1
    return any(name in _PNG_METADATA for name, *_ in png_chunks(encoded))


def upright_size(encoded: bytes) -> tuple[int, int]:
    """Returns width and height of an image that decodes, in pixels, as a viewer shows it.

    Args:
      encoded: from `as_jpeg_or_png`.

    Raises:
      ValueError: Pillow cannot open the image.
    """
    try:
        with PIL.Image.open(io.BytesIO(encoded), formats=_AS_THEY_ARE) as image:
            width, height = image.size
            # Orientations 5 to 8 exchange the sides.
            return (height, width) if orientation_of(image) >= 5 else (width, height)
    except Exception as error:  # Pillow may raise any exception for damaged bytes
        raise ValueError(f"the image cannot be opened: {str(error)[:200]}") from error


def needs_heif(encoded: bytes) -> bool:
    """Returns whether an image is HEIC, as telephones write it, and pillow-heif is missing."""
    # Bytes 4 to 12 are "ftyp" and the brand of the file: heic, heix, heim, ..., or mif1 and msf1.
    brand = encoded[8:12]
    heic = encoded[4:8] == b"ftyp" and (brand.startswith(b"he") or brand in (b"mif1", b"msf1"))
    return heic and "HEIF" not in converted_formats()


def readable_formats() -> tuple[str, ...]:
    """Returns Pillow's names of the formats that can be read here, some of FORMATS."""
    return (*_AS_THEY_ARE, *converted_formats())


@functools.cache
def converted_formats() -> tuple[str, ...]:
    """Returns Pillow's names of the formats that are converted and that it can read here."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    PIL.Image.init()  # registers all formats; naming another one would be a KeyError
    return tuple(name for name in FORMATS if name in PIL.Image.OPEN and name not in _AS_THEY_ARE)
