import contextlib
import io
import struct
import sys
import threading
import zlib
from types import FrameType

import numpy as np
import pillow_heif
import pytest
from data_cases import photo
from PIL import Image, ImageOps

from paligemma_lib.data import decode_image
from paligemma_lib.data.encoded import FORMATS

LEVEL = 1 / 127.5  # one of 256 levels, in [-1, 1]


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Antialiased bilinear resizing by its definition: a triangle over the pixels it covers."""

    def weights(count: int) -> np.ndarray:
        scale = count / size
        centre = (np.arange(size)[:, None] + 0.5) * scale
        distance = np.abs(np.arange(count)[None, :] + 0.5 - centre) / max(scale, 1)
        triangle = np.maximum(0, 1 - distance)
        return (triangle / triangle.sum(axis=1, keepdims=True)).astype(np.float32)

    height, width, _ = pixels.shape
    rows = np.tensordot(weights(height), pixels.astype(np.float32), axes=(1, 0))
    return np.tensordot(rows, weights(width), axes=(1, 1)).transpose(0, 2, 1)


def expected(pixels, size: int) -> np.ndarray:
    return resize(np.asarray(pixels), size) / 127.5 - 1


def encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def image() -> Image.Image:
    return Image.open(io.BytesIO(photo(0, size=(90, 60))))


@pytest.mark.parametrize("size", [17, 32, 60, 90, 224])
def test_images_are_squashed_with_antialiasing(image, size):
    pixels = decode_image(encode(image, "PNG"), size)
    assert pixels.dtype == np.float32 and pixels.shape == (size, size, 3)
    np.testing.assert_allclose(pixels, expected(image, size), atol=0.02 * LEVEL)


def test_a_image_of_the_right_size_is_not_changed():
    data = photo(1, size=(32, 32))
    levels = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_image(data, 32, dtype="uint8"), levels)
    np.testing.assert_allclose(decode_image(data, 32), levels / 127.5 - 1, atol=1e-6)


def png_16_bits(levels: np.ndarray) -> bytes:
    """A PNG file of uint16[H, W, 3], which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in levels.astype(">u2"))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(pixels: np.ndarray, *masks: int) -> bytes:
    """A BMP file of uint16[H, W] or uint32[H, W] and the bits of red, green and blue in them."""
    height, width = pixels.shape
    bits, begin = 8 * pixels.itemsize, 14 + 40 + 12
    data = pixels[::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 3, len(data), 0, 0, 0, 0)
    file = struct.pack("<IHHI", begin + len(data), 0, 0, begin)
    return b"BM" + file + header + struct.pack("<III", *masks) + data


def gif_with_a_margin(colour: bytes) -> bytes:
    """A GIF file of 8 x 6 pixels whose only frame is one pixel at (3, 2)."""
    screen = struct.pack("<HHBBB", 8, 6, 0x80, 0, 0) + bytes(3) + colour
    frame = b"," + struct.pack("<HHHHB", 3, 2, 1, 1, 0)
    return b"GIF89a" + screen + frame + bytes([2, 2, 0b01001100, 1, 0]) + b";"


def kinds(image: Image.Image) -> dict[str, tuple[bytes, Image.Image]]:
    """Encoded images of every kind, with what they show."""
    grey, palette, transparent = image.convert("L"), image.quantize(32), image.copy()
    transparent.putalpha(grey)
    sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    inverted = ImageOps.invert(image).quantize(32)
    moving = {"save_all": True, "append_images": [inverted]}
    levels = np.asarray(image).astype(np.uint16)
    red, green, blue = np.moveaxis(levels, 2, 0)
    files = {
        "JPEG": encode(image, "JPEG"),
        "JPEG 4:4:4": encode(image, "JPEG", subsampling=0, quality=98),
        "JPEG progressive": encode(image, "JPEG", progressive=True),
        "JPEG RGB": encode(image, "JPEG", keep_rgb=True),
        "JPEG grey": encode(grey, "JPEG"),
        "JPEG CMYK": encode(image.convert("CMYK"), "JPEG"),
        "JPEG YCCK": encode(image.convert("CMYK"), "JPEG").replace(
            b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2"
        ),
        "PNG grey": encode(grey, "PNG"),
        "PNG grey, transparent": encode(image.convert("LA"), "PNG"),
        "PNG palette": encode(palette, "PNG"),
        "PNG palette, transparent": encode(palette, "PNG", transparency=3),
        "PNG transparent": encode(transparent, "PNG"),
        "PNG one colour transparent": encode(image, "PNG", transparency=image.getpixel((0, 0))),
        "PNG one bit": encode(image.convert("1"), "PNG"),
        "PNG 16 bits": png_16_bits(levels * 256 + 200),
        "PNG animated": encode(image, "PNG", **moving),
        "GIF": encode(palette, "GIF"),
        "GIF transparent": encode(palette, "GIF", transparency=3),
        "GIF animated": encode(palette, "GIF", **moving),
        "GIF with a margin": gif_with_a_margin(b"\xff\x80\x40"),
        "BMP": encode(image, "BMP"),
        "BMP 32 bits": encode(transparent, "BMP"),
        "BMP 16 bits": bmp((red >> 3 << 11) | (green >> 2 << 5) | (blue >> 3), 63488, 2016, 31),
        "BMP grey": encode(grey, "BMP"),
        "BMP palette": encode(palette, "BMP"),
        "BMP one bit": encode(image.convert("1"), "BMP"),
        "WebP": encode(image, "WEBP", lossless=True),
        "WebP lossy": encode(image, "WEBP", quality=70),
        "WebP transparent": encode(transparent, "WEBP", lossless=True, exact=True),
        "WebP animated": encode(image, "WEBP", lossless=True, **moving),
    }
    shown = {
        name: Image.open(io.BytesIO(data)).convert("RGBA").convert("RGB")
        for name, data in files.items()
    }
    return {name: (files[name], shown[name]) for name in files} | {
        "PNG grey, 16 bits": (encode(sixteen, "PNG"), grey.convert("RGB"))
    }


@pytest.mark.parametrize("kind", sorted(kinds(Image.new("RGB", (2, 2)))))
def test_every_kind_of_file_gives_the_pixels_that_pillow_gives(image, kind):
    data, shown = kinds(image)[kind]
    np.testing.assert_allclose(decode_image(data, 32), expected(shown, 32), atol=0.02 * LEVEL)


@pytest.mark.parametrize(
    "kind", ["BMP palette", "BMP 16 bits", "GIF transparent", "WebP transparent", "JPEG CMYK"]
)
def test_colours_are_those_of_the_image(image, kind):
    data, _ = kinds(image)[kind]
    off = np.abs(decode_image(data, 32) - expected(image, 32)) / LEVEL
    assert off.mean() < 20  # what 32 colours lose; wrong ones are 60 and more off


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (4000, 3)])
def test_small_and_long_images_are_squashed_too(size):
    data = photo(2, size=size)
    wanted = expected(Image.open(io.BytesIO(data)), 16)
    np.testing.assert_allclose(decode_image(data, 16), wanted, atol=0.02 * LEVEL)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_unless_told_otherwise(image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, "JPEG", exif=exif)
    shown = Image.open(io.BytesIO(data))
    turned = ImageOps.exif_transpose(shown)
    stored = decode_image(data, 32, apply_exif=False)
    np.testing.assert_allclose(stored, expected(shown, 32), atol=0.02 * LEVEL)
    np.testing.assert_allclose(decode_image(data, 32), expected(turned, 32), atol=0.02 * LEVEL)


@pytest.mark.parametrize("form", [*FORMATS])
@pytest.mark.parametrize("orientation", [3, 6])
def test_images_of_every_format_are_upright(image, form, orientation):
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, form, exif=exif)
    shown = Image.open(io.BytesIO(data))
    turned = ImageOps.exif_transpose(shown).convert("RGB")
    np.testing.assert_allclose(decode_image(data, 32), expected(turned, 32), atol=0.02 * LEVEL)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_is_none_is_ignored(image, value):
    exif = Image.Exif()
    exif[0x0112] = value
    data = encode(image, "JPEG", exif=exif)
    np.testing.assert_array_equal(decode_image(data, 32), decode_image(data, 32, apply_exif=False))


def test_uint8_is_cut_off_to_whole_levels_as_in_the_reference(image):
    levels = decode_image(encode(image, "PNG"), 32, dtype="uint8")
    assert levels.dtype == np.uint8
    exact = resize(np.asarray(image), 32)
    decided = np.abs(exact - np.round(exact)) > 0.02  # float32 decides the others
    np.testing.assert_array_equal(levels[decided], np.floor(exact)[decided])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        b"\xff\xd8\xff\xe0",
        encode(Image.new("RGB", (200, 200)), "ICO"),
        photo(0, form="JPEG")[:-30],
        photo(0, form="PNG")[:300],
        photo(0, form="GIF")[:300],
        photo(0, form="BMP")[:300],
        photo(0, form="WEBP")[:-30],
        bmp(np.zeros((6, 8), np.uint32), 0xFF, 0xFF00, 0xFF0000),  # TensorFlow: red for blue
    ],
)
def test_what_is_no_whole_image_raises(data):
    with pytest.raises(ValueError, match=f"not a complete .* image: {len(data)} bytes that begin"):
        decode_image(data, 32)
    with pytest.raises(ValueError, match="not a complete"):
        decode_image(data, 32, apply_exif=False)


@pytest.mark.slow
def test_photographs_as_pillow_decodes_and_numpy_resizes_them(shared):
    paths = sorted((shared / "flickr8k" / "full" / "Images").iterdir())[:200]
    assert len(paths) == 200
    worst = 0.0
    for path in paths:
        data = path.read_bytes()
        exact = resize(np.asarray(Image.open(path).convert("RGB")), 224)
        worst = max(worst, np.abs(decode_image(data, 224) - (exact / 127.5 - 1)).max())
        reference = np.floor(np.clip(exact, 0, 255))
        assert np.abs(decode_image(data, 224, dtype="uint8") - reference).max() <= 1
    assert worst < 2 / 255  # 1/255 of the range of [-1, 1]
    assert worst < 0.05 * LEVEL  # in fact far less


def test_a_thread_that_dies_while_it_decodes_holds_up_no_other():
    """It dies in each function of TensorFlow's that runs a graph: none may keep a lock."""
    image, found = photo(0, (4, 3)), []

    def decode(calls: int = 1_000_000) -> None:
        left = iter(range(calls))

        def die(frame: FrameType, *_: object) -> None:
            if "polymorphic_function" in frame.f_code.co_filename and next(left, None) is None:
                raise SystemExit

        sys.settrace(die)
        with contextlib.suppress(BaseException):
            found.append(decode_image(image, 8))
        sys.settrace(None)

    for calls in range(1_000):
        before = len(found)
        for each in (calls, 1_000_000):
            thread = threading.Thread(target=decode, args=(each,), daemon=True)
            thread.start()
            thread.join(60)
            assert not thread.is_alive(), f"the thread before died in call {calls}"
        if len(found) == before + 2:
            break
    assert 5 < calls < 999
