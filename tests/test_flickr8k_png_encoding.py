"""Stored images have the pixels that the library, and a viewer, see in their files."""

import io

import numpy as np
import pillow_heif
import pytest
import tensorflow as tf
from flickr8k_sources import image as photo
from PIL import Image, ImageOps

from flickr8k_tfds.image_checks import examine
from flickr8k_tfds.image_formats import FORMATS
from flickr8k_tfds.png_encoding import as_png
from paligemma_lib.data import decode_image

pillow_heif.register_heif_opener()

SIDE = 16  # the library does not resize what has this size already
RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
ALPHA = RGB.copy()
ALPHA.putalpha(Image.linear_gradient("L").resize((SIDE, SIDE)))
CMYK = Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 4), np.uint8), "CMYK")
GREY16 = Image.fromarray((np.arange(SIDE * SIDE, dtype=np.uint16) * 251).reshape(SIDE, SIDE))


def encode(image: Image.Image, form: str, orientation: int = 1, **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, form, exif=exif, **options)
    return buffer.getvalue()


def mpo(orientation: int = 1) -> bytes:
    other = RGB.transpose(Image.Transpose.ROTATE_90)
    return encode(RGB, "MPO", orientation, save_all=True, append_images=[other])


def without_adobe(jpeg: bytes) -> bytes:
    """The JPEG without the marker that tells that CMYK is stored inverted."""
    place = jpeg.index(b"\xff\xee")
    return jpeg[:place] + jpeg[place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big") :]


def gif() -> bytes:
    """Two frames, the first transparent."""
    first = RGB.quantize(32)
    first.info["transparency"] = 3
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=[CMYK.convert("RGB").quantize(8)])
    return buffer.getvalue()


CASES = {
    "jpeg": encode(RGB, "JPEG"),
    "jpeg grey": encode(RGB.convert("L"), "JPEG"),
    "jpeg cmyk": encode(CMYK, "JPEG"),
    "jpeg cmyk not of adobe": without_adobe(encode(CMYK, "JPEG")),
    "mpo": mpo(),
    "png": encode(RGB, "PNG"),
    "png alpha": encode(ALPHA, "PNG"),
    "png grey alpha": encode(ALPHA.convert("LA"), "PNG"),
    "png palette": encode(RGB.quantize(16), "PNG"),
    "png black and white": encode(RGB.convert("1"), "PNG"),
    "png grey16": encode(GREY16, "PNG"),
    "gif": gif(),
    "bmp": encode(RGB, "BMP"),
    "bmp palette": encode(RGB.quantize(16), "BMP"),
    "webp alpha": encode(ALPHA, "WEBP", lossless=True, exact=True),
    "tiff": encode(RGB, "TIFF"),
    "tiff cmyk": encode(CMYK, "TIFF"),
    "tiff grey16": encode(GREY16, "TIFF"),
    "ppm": encode(RGB, "PPM"),
    "ppm grey16": encode(GREY16, "PPM"),
    "avif": encode(RGB, "AVIF"),
    "heif": encode(RGB, "HEIF"),
}
TURNED = {
    "jpeg": lambda n: encode(RGB, "JPEG", n),
    "jpeg cmyk": lambda n: encode(CMYK, "JPEG", n),
    "jpeg cmyk not of adobe": lambda n: without_adobe(encode(CMYK, "JPEG", n)),
    "mpo": mpo,
    "png": lambda n: encode(RGB, "PNG", n),
    "png grey16": lambda n: encode(GREY16, "PNG", n),
    "webp": lambda n: encode(ALPHA, "WEBP", n, lossless=True),
    "avif": lambda n: encode(RGB, "AVIF", n),
    "heif": lambda n: encode(RGB, "HEIF", n),
}


def stored(data: bytes, apply_exif: bool = True) -> bytes:
    """What the builder stores."""
    facts = examine(data, "a.jpg", apply_exif=apply_exif)
    assert not facts.fault
    return data if facts.portable else as_png(data, side=None, apply_exif=apply_exif)


def library(data: bytes, apply_exif: bool) -> np.ndarray:
    return decode_image(data, SIDE, dtype="uint8", apply_exif=apply_exif)


def tensorflow(data: bytes) -> np.ndarray:
    return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


def test_every_format_is_here():
    assert {name.split()[0] for name in CASES} == {name.lower() for name in FORMATS}


@pytest.mark.parametrize("apply_exif", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_stored_pixels_are_those_that_the_library_sees(case, apply_exif):
    data = CASES[case]
    kept = stored(data, apply_exif)
    np.testing.assert_array_equal(library(kept, apply_exif), library(data, apply_exif))
    if not case.startswith(("jpeg", "mpo")):  # these need another DCT than TensorFlow's default
        np.testing.assert_array_equal(tensorflow(kept), library(data, apply_exif))
    assert (kept is data) == case.startswith(("jpeg", "mpo", "png"))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("case", TURNED)
def test_turned_pixels_are_those_that_the_library_sees(case, orientation):
    data = TURNED[case](orientation)
    np.testing.assert_array_equal(tensorflow(stored(data)), library(data, True))
    assert not Image.open(io.BytesIO(stored(data))).getexif()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["TIFF", "PNG"])
def test_pixels_are_those_that_a_viewer_shows(form, orientation):
    data = encode(RGB.crop((0, 0, 12, 7)), form, orientation)
    facts = examine(data, "a.tif", apply_exif=True)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(tensorflow(stored(data)), shown)
    assert (facts.height, facts.width) == shown.shape[:2]


def test_an_orientation_can_be_left_alone():
    data = encode(RGB, "JPEG", 6)
    assert stored(data, apply_exif=False) is data


def test_a_png_keeps_no_transparency_and_the_profile_of_its_colours_only():
    with_profile = encode(ALPHA, "WEBP", lossless=True, icc_profile=b"profile")
    png = Image.open(io.BytesIO(stored(with_profile)))
    assert (png.mode, png.info.get("icc_profile")) == ("RGB", b"profile")
    assert Image.open(io.BytesIO(stored(gif()))).info.keys() <= {"interlace"}
    ink = encode(CMYK, "TIFF", icc_profile=b"profile")
    assert "icc_profile" not in Image.open(io.BytesIO(stored(ink))).info


def square(data: bytes, side: int, apply_exif: bool = True) -> Image.Image:
    return Image.open(io.BytesIO(as_png(data, side=side, apply_exif=apply_exif)))


def test_a_square_is_rgb_of_the_side():
    png = square(photo(0, mode="L", size=(30, 20)), side=8)
    assert (png.format, png.mode, png.size) == ("PNG", "RGB", (8, 8))


@pytest.mark.parametrize("apply_exif", [True, False])
@pytest.mark.parametrize("case", [*CASES, "turned"])
def test_a_square_has_the_pixels_of_the_library(case, apply_exif):
    data = CASES.get(case) or encode(RGB, "JPEG", 6)
    found = np.asarray(square(data, SIDE, apply_exif))
    np.testing.assert_array_equal(found, library(data, apply_exif))


@pytest.mark.parametrize("side", [7, 40, 90])
def test_a_square_is_the_antialiased_bilinear_resize_of_training(side):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    pixels = np.asarray(coarse.resize((64, 48), Image.Resampling.BICUBIC))
    data = encode(Image.fromarray(pixels), "PNG")
    expected = tf.image.resize(pixels, (side, side), method="bilinear", antialias=True).numpy()
    difference = np.abs(np.asarray(square(data, side), np.float32) - expected)
    assert difference.mean() < 0.5
    assert difference.max() < 1.5
