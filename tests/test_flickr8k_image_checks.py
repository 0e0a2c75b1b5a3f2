import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from flickr8k_sources import exif_rotated
from flickr8k_sources import image as photo
from PIL import Image

from flickr8k_tfds.image_checks import BadImage, decode, describe, sha256, square_png


def verify(data: bytes, name: str):
    return describe(decode(data), data, name)


def square(data: bytes, side: int) -> Image.Image:
    return Image.open(io.BytesIO(square_png(decode(data), side)))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(kind: bytes, content: bytes) -> bytes:
    """A PNG with another chunk before its pixels."""
    data = photo(form="PNG")
    place = data.index(b"IDAT") - 4
    return data[:place] + chunk(kind, content) + data[place:]


def png_with_bad_exif() -> bytes:
    return png_with(b"eXIf", b"not EXIF at all")


def jpeg_with_bad_exif() -> bytes:
    data = photo(dpi=(72, 72))
    broken = b"Exif\0\0not EXIF at all"
    return data[:20] + b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken + data[20:]


def png_with_wrong_checksum() -> bytes:
    data = bytearray(photo(form="PNG"))
    data[data.index(b"IEND") - 5] ^= 1
    return bytes(data)


def test_a_plain_image():
    data = photo(size=(16, 12))
    found = verify(data, "a.jpg")
    assert (found.height, found.width, found.remarks) == (12, 16, ())
    assert found.sha256 == sha256(data)


@pytest.mark.parametrize(
    ("data", "name", "remark"),
    [
        (photo(0, mode="L"), "a.jpg", "greyscale"),
        (photo((1, 2, 3, 4), mode="CMYK"), "a.jpeg", "CMYK"),
        (photo((1, 2, 3, 4), mode="RGBA", form="PNG"), "a.png", "with alpha"),
        (photo(form="PNG"), "a.jpg", "PNG content in a .jpg file"),
        (exif_rotated(), "a.jpg", "rotated by EXIF, which is ignored"),
        (png_with_bad_exif(), "a.png", "EXIF that cannot be read, which is ignored"),
        (jpeg_with_bad_exif(), "a.jpg", "EXIF that cannot be read, which is ignored"),
    ],
)
def test_unusual_but_usable(data, name, remark):
    assert verify(data, name).remarks == (remark,)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (photo(size=(200, 200))[:-50], "does not decode.*truncated"),
        (photo(form="PNG", size=(200, 200))[:-50], "does not decode: Truncated"),
        (photo(form="GIF"), "format GIF, only JPEG and PNG are kept"),
        (png_header(20_000, 20_000), "more than the limit of 64,000,000 pixels"),
        (png_header(9_000, 9_000), "9000 x 9000 pixels, more than the limit of 64,000,000"),
        (png_header(100, 100), "does not decode"),
        (png_with_wrong_checksum(), "does not decode.*IDAT"),
        (photo(form="PNG")[:-12], "does not decode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_images_say_why(data, reason):
    with pytest.raises(BadImage, match=reason):
        verify(data, "a.jpg")


def test_a_real_image_of_20000_x_20000_is_refused_before_it_is_decoded():
    data = photo(0, size=(20_000, 20_000), mode="1", form="PNG")
    with pytest.raises(BadImage, match="pixels"):
        verify(data, "a.png")


@pytest.mark.parametrize("cut", [1, 2, 10, 100])
def test_every_truncation_of_a_jpeg_is_noticed(cut):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    with pytest.raises(BadImage, match="truncated"):
        verify(buffer.getvalue()[:-cut], "a.jpg")


def test_square_png_is_rgb_of_the_side():
    png = square(photo(0, mode="L", size=(30, 20)), side=8)
    assert (png.format, png.mode, png.size) == ("PNG", "RGB", (8, 8))


def test_square_png_keeps_the_high_byte_of_16_bits():
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0xAB12, np.uint16)).save(buffer, "PNG")
    png = square(buffer.getvalue(), side=4)
    assert np.unique(np.asarray(png)).tolist() == [0xAB]


def test_square_png_drops_alpha():
    data = photo((10, 20, 30, 0), mode="RGBA", form="PNG")
    png = np.asarray(square(data, side=4))
    assert png[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("side", [7, 40, 90])
def test_square_png_is_the_antialiased_bilinear_resize_of_training(side):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    pixels = np.asarray(coarse.resize((64, 48), Image.Resampling.BICUBIC))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    expected = tf.image.resize(pixels, (side, side), method="bilinear", antialias=True).numpy()
    difference = np.abs(np.asarray(square(buffer.getvalue(), side), np.float32) - expected)
    assert difference.mean() < 0.5
    assert difference.max() < 1.5
