import io
import re
import struct
import zlib

import numpy as np
import pytest
from data_cases import slow_jpeg
from flickr8k_sources import exif_rotated
from flickr8k_sources import image as photo
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flickr8k_tfds import image_formats
from flickr8k_tfds.image_checks import examine, sha256


def verify(data: bytes, name: str, apply_exif: bool = True):
    return examine(data, name, apply_exif=apply_exif)


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
    assert (found.height, found.width, found.remarks, found.fault) == (12, 16, (), "")
    assert found.portable
    assert found.sha256 == sha256(data)


def test_height_and_width_are_those_of_the_image_as_it_is_stored():
    turned, as_it_is = verify(exif_rotated(), "a.jpg"), verify(exif_rotated(), "a.jpg", False)
    assert (turned.height, turned.width, turned.portable) == (16, 12, False)
    assert (as_it_is.height, as_it_is.width, as_it_is.portable) == (12, 16, True)
    assert as_it_is.remarks == ("rotated by EXIF, which is ignored",)


@pytest.mark.parametrize(
    ("data", "name", "remark"),
    [
        (photo(0, mode="L"), "a.jpg", "greyscale"),
        (photo((1, 2, 3, 4), mode="CMYK"), "a.jpeg", "CMYK"),
        (photo((1, 2, 3, 4), mode="RGBA", form="PNG"), "a.png", "with alpha"),
        (photo(form="PNG"), "a.jpg", "PNG content in a .jpg file"),
        (exif_rotated(), "a.jpg", "turned upright by EXIF"),
        (photo(form="GIF"), "a.gif", "GIF, stored as PNG"),
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
        (b"hello", "not an image of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (photo(size=(200, 200))[:-50], "does not decode.*truncated"),
        (photo(form="PNG", size=(200, 200))[:-50], "does not decode: Truncated"),
        (photo(form="ICO"), "not an image of a known format: convert it to JPEG or PNG"),
        (photo(form="WEBP", size=(200, 200))[:-50], "does not decode"),
        (photo(0.5, mode="F", form="TIFF"), "floating-point values"),
        (png_header(20_000, 20_000), "more than the limit of 64,000,000 pixels"),
        (png_header(9_000, 9_000), "9000 x 9000 pixels, more than the limit of 64,000,000"),
        (png_header(100, 100), "does not decode"),
        (png_with_wrong_checksum(), "does not decode.*IDAT"),
        (photo(form="PNG")[:-12], "does not decode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_images_say_why(data, reason):
    assert re.search(reason, verify(data, "a.jpg").fault)


def test_a_real_image_of_20000_x_20000_is_refused_before_it_is_decoded():
    data = photo(0, size=(20_000, 20_000), mode="1", form="PNG")
    assert "pixels" in verify(data, "a.png").fault


def noise(**options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("cut", [1, 2, 10, 100])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_truncation_of_a_jpeg_is_noticed(cut, progressive):
    assert "truncated" in verify(noise(progressive=progressive)[:-cut], "a.jpg").fault


JPEGS = [noise(), noise(progressive=True), noise(quality=30, restart_marker_rows=1)]


@given(
    st.sampled_from(JPEGS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    st.floats(0.5, 1),
)
def test_the_fast_check_finds_the_damage_that_decoding_finds(jpeg, changed, kept):
    data = bytearray(jpeg[: round(len(jpeg) * kept)])
    for place, value in changed:
        data[int(place * (len(data) - 1))] = value
    try:
        image_formats.decode(image_formats.open_image(bytes(data)))
        decodes = True
    except image_formats.BadImage:
        decodes = False
    assert (not verify(bytes(data), "a.jpg").fault) == decodes


def test_heic_without_its_plug_in_tells_the_cure(monkeypatch):
    monkeypatch.setattr(image_formats, "_readable", lambda: ("JPEG",))
    heic = b"\0\0\0\x18ftypheic" + bytes(12)
    assert "HEIC, which needs pip install pillow-heif" in verify(heic, "a.heic").fault


def test_a_jpeg_of_thousands_of_scans_is_left_out():
    assert verify(slow_jpeg(100), "a.jpg").fault == ""
    assert "more than 100 scans" in verify(slow_jpeg(101), "a.jpg").fault
