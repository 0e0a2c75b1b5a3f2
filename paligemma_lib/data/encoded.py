"""What is done to the bytes of an image file before TensorFlow decodes them; by Pillow.

    encoded = as_jpeg_or_png(path.read_bytes())
    orientation = exif_orientation(path.read_bytes())

TensorFlow takes the palette of a BMP for shades of grey and other orders of its channels for BGR,
the first frame of a GIF for the whole of it and what is transparent there for black, and knows no
transparent or animated WebP. So these three become PNG; JPEG and PNG stay as they are.
"""

import io

import PIL.Image

_JPEG_OR_PNG = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # how these files begin


def as_jpeg_or_png(encoded: bytes) -> bytes:
    """An image that TensorFlow decodes as Pillow does.

    Args:
      encoded: the bytes of a JPEG, PNG, GIF, BMP or WebP file.

    Returns:
      The same bytes of a JPEG or PNG file, whole or not; the first frame of another one as PNG, in
      RGB; b"" for what Pillow does not decode, since TensorFlow might, in wrong colours.
    """
    if encoded.startswith(_JPEG_OR_PNG):
        return encoded
    file = io.BytesIO()
    try:
        with PIL.Image.open(io.BytesIO(encoded), formats=("GIF", "BMP", "WEBP")) as image:
            image.convert("RGB").save(file, "PNG", compress_level=1)
    except Exception:  # Pillow may raise anything, given damaged bytes
        return b""
    return file.getvalue()


def exif_orientation(encoded: bytes) -> int:
    """The EXIF orientation of an image, 1 to 8; 1 if it has none that can be read."""
    try:
        with PIL.Image.open(io.BytesIO(encoded)) as image:
            orientation = image.getexif().get(0x0112, 1)
    except Exception:  # Pillow may raise anything; decoding will say what is wrong, if it matters
        return 1
    return orientation if orientation in range(1, 9) else 1
