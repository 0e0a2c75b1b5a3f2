import io

import numpy as np
import pytest
from data_cases import picture
from PIL import Image, ImageOps

from paligemma_lib.data import decode_image

LEVEL = 1 / 127.5  # one of 256 levels, in [-1, 1]
WHITE = Image.new("RGB", (9, 9), "white")


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
    return Image.open(io.BytesIO(picture(0, size=(90, 60))))


@pytest.mark.parametrize("size", [17, 32, 60, 90, 224])
def test_pictures_are_squashed_with_antialiasing(image, size):
    pixels = decode_image(encode(image, "PNG"), size)
    assert pixels.dtype == np.float32 and pixels.shape == (size, size, 3)
    np.testing.assert_allclose(pixels, expected(image, size), atol=0.02 * LEVEL)


def test_a_picture_of_the_right_size_is_not_changed():
    data = picture(1, size=(32, 32))
    levels = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_image(data, 32, dtype="uint8"), levels)
    np.testing.assert_allclose(decode_image(data, 32), levels / 127.5 - 1, atol=1e-6)


def kinds(image: Image.Image) -> dict[str, tuple[bytes, Image.Image]]:
    """Encoded pictures of every kind, with what they show."""
    grey, palette, transparent = image.convert("L"), image.quantize(32), image.copy()
    transparent.putalpha(grey)
    sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    inverted = ImageOps.invert(image).quantize(32)
    files = {
        "JPEG": encode(image, "JPEG"),
        "JPEG 4:4:4": encode(image, "JPEG", subsampling=0, quality=98),
        "JPEG progressive": encode(image, "JPEG", progressive=True),
        "JPEG grey": encode(grey, "JPEG"),
        "JPEG CMYK": encode(image.convert("CMYK"), "JPEG"),
        "PNG grey": encode(grey, "PNG"),
        "PNG grey, transparent": encode(image.convert("LA"), "PNG"),
        "PNG palette": encode(palette, "PNG"),
        "PNG palette, transparent": encode(palette, "PNG", transparency=3),
        "PNG transparent": encode(transparent, "PNG"),
        "PNG one bit": encode(image.convert("1"), "PNG"),
        "GIF": encode(palette, "GIF"),
        "GIF animated": encode(palette, "GIF", save_all=True, append_images=[inverted]),
        "BMP": encode(image, "BMP"),
        "BMP grey": encode(grey, "BMP"),
        "WebP": encode(image, "WEBP", lossless=True),
    }
    shown = {
        name: Image.open(io.BytesIO(data)).convert("RGBA").convert("RGB")
        for name, data in files.items()
    }
    return {name: (files[name], shown[name]) for name in files} | {
        "PNG 16 bits": (encode(sixteen, "PNG"), grey.convert("RGB"))
    }


@pytest.mark.parametrize("kind", sorted(kinds(Image.new("RGB", (2, 2)))))
def test_every_kind_of_file_gives_the_pixels_that_pillow_gives(image, kind):
    data, shown = kinds(image)[kind]
    np.testing.assert_allclose(decode_image(data, 32), expected(shown, 32), atol=0.02 * LEVEL)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored_unless_asked_for(image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, "JPEG", exif=exif)
    shown = Image.open(io.BytesIO(data))
    turned = ImageOps.exif_transpose(shown)
    np.testing.assert_allclose(decode_image(data, 32), expected(shown, 32), atol=0.02 * LEVEL)
    np.testing.assert_allclose(
        decode_image(data, 32, apply_exif=True), expected(turned, 32), atol=0.02 * LEVEL
    )


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_is_none_is_ignored(image, value):
    exif = Image.Exif()
    exif[0x0112] = value
    data = encode(image, "JPEG", exif=exif)
    np.testing.assert_array_equal(decode_image(data, 32, apply_exif=True), decode_image(data, 32))


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
        b"no picture",
        b"\xff\xd8\xff\xe0",
        encode(Image.new("RGB", (200, 200)), "TIFF"),
        encode(Image.new("RGBA", (20, 20), (9, 8, 7, 6)), "WEBP"),
        encode(Image.new("L", (9, 9)), "WEBP", save_all=True, append_images=[WHITE]),
        picture(0, form="JPEG")[:-30],
        picture(0, form="PNG")[:300],
    ],
)
def test_what_is_no_whole_picture_raises(data):
    with pytest.raises(ValueError, match=f"not a whole .* picture: {len(data)} bytes that begin"):
        decode_image(data, 32)
    with pytest.raises(ValueError, match="not a whole"):
        decode_image(data, 32, apply_exif=True)


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
