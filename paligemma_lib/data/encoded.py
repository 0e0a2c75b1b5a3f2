"""Prepares the bytes of an image file for decoding by TensorFlow, with Pillow.

    encoded = as_jpeg_or_png(path.read_bytes())
    orientation = exif_orientation(path.read_bytes())

TensorFlow decodes three formats differently from Pillow. It reads the palette indices of a BMP as
grey levels, and any order of its channels as BGR. It takes the first frame of a GIF for the whole
canvas, and shows its transparent pixels as black. It does not support transparent or animated WebP.
So files of these formats are converted to PNG. JPEG and PNG files stay as they are.
"""

import io

import PIL.Image

_JPEG_OR_PNG = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # their first bytes


def as_jpeg_or_png(encoded: bytes) -> bytes:
    """Converts an image to a format that TensorFlow decodes to the same pixels as Pillow.

    Args:
      encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP file.

    Returns:
      The bytes of a JPEG or PNG file unchanged, even if the file is damaged. The first frame of
      another file as an RGB PNG. b"" if Pillow cannot decode the file: TensorFlow might still
      decode it, but to wrong colours, and it rejects b"".
    """
    if encoded.startswith(_JPEG_OR_PNG):
        return encoded
    file = io.BytesIO()
    try:
        with PIL.Image.open(io.BytesIO(encoded), formats=("GIF", "BMP", "WEBP")) as image:
            image.convert("RGB").save(file, "PNG", compress_level=1)
    except Exception:  # Pillow may raise any exception for damaged bytes
        return b""
    return file.getvalue()


def exif_orientation(encoded: bytes) -> int:
    """Returns the EXIF orientation of an image, 1 to 8; 1 if it has none that can be read."""
    try:
        with PIL.Image.open(io.BytesIO(encoded)) as image:
            orientation = image.getexif().get(0x0112, 1)
    except Exception:  # Pillow may raise any exception; decoding reports damaged bytes later
        return 1
    return orientation if orientation in range(1, 9) else 1
