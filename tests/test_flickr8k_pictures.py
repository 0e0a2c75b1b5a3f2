import io
import struct
import zlib

import numpy as np
import pytest
from flickr8k_sources import picture
from PIL import Image

from flickr8k_tfds.pictures import BadPicture, sha256, square_png, verify


def test_a_plain_picture():
    data = picture(size=(16, 12))
    found = verify(data, "a.jpg")
    assert (found.height, found.width, found.remarks) == (12, 16, ())
    assert found.sha256 == sha256(data)


def exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(exif=exif)


@pytest.mark.parametrize(
    ("data", "name", "remark"),
    [
        (picture(0, mode="L"), "a.jpg", "greyscale"),
        (picture((1, 2, 3, 4), mode="CMYK"), "a.jpeg", "CMYK"),
        (picture((1, 2, 3, 4), mode="RGBA", form="PNG"), "a.png", "with alpha"),
        (picture(form="PNG"), "a.jpg", "PNG content in a .jpg file"),
        (exif_rotated(), "a.jpg", "rotated by EXIF, which is ignored"),
    ],
)
def test_unusual_but_usable(data, name, remark):
    assert verify(data, name).remarks == (remark,)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (picture(size=(200, 200))[:-50], "does not decode.*truncated"),
        (picture(form="PNG", size=(200, 200))[:-50], "does not decode.*truncated"),
        (picture(form="GIF"), "format GIF, only JPEG and PNG are kept"),
        (png_header(20_000, 20_000), "more than the limit of 64,000,000 pixels"),
        (png_header(9_000, 9_000), "9000 x 9000 pixels, more than the limit of 64,000,000"),
        (png_header(100, 100), "does not decode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_pictures_say_why(data, reason):
    with pytest.raises(BadPicture, match=reason):
        verify(data, "a.jpg")


def test_a_real_picture_of_20000_x_20000_is_refused_before_it_is_decoded():
    data = picture(0, size=(20_000, 20_000), mode="1", form="PNG")
    with pytest.raises(BadPicture, match="pixels"):
        verify(data, "a.png")


@pytest.mark.parametrize("cut", [1, 2, 10, 100])
def test_every_truncation_of_a_jpeg_is_noticed(cut):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    with pytest.raises(BadPicture, match="truncated"):
        verify(buffer.getvalue()[:-cut], "a.jpg")


def test_square_png_is_rgb_of_the_side():
    png = Image.open(io.BytesIO(square_png(picture(0, mode="L", size=(30, 20)), side=8)))
    assert (png.format, png.mode, png.size) == ("PNG", "RGB", (8, 8))


def test_square_png_keeps_the_high_byte_of_16_bits():
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0xAB12, np.uint16)).save(buffer, "PNG")
    png = Image.open(io.BytesIO(square_png(buffer.getvalue(), side=4)))
    assert np.unique(np.asarray(png)).tolist() == [0xAB]


def test_square_png_drops_alpha():
    data = picture((10, 20, 30, 0), mode="RGBA", form="PNG")
    png = np.asarray(Image.open(io.BytesIO(square_png(data, side=4))))
    assert png[0, 0].tolist() == [10, 20, 30]
