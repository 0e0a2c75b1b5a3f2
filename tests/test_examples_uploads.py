"""Files from strangers: images pass unchanged, everything else is refused with a sentence."""

import io

import numpy as np
import pytest
import uploads
from data_cases import huge_png, slow_jpeg
from fuzzing import EXAMPLES, damaged, fuzz
from PIL import Image
from uploads import Refused, check

import paligemma_lib as pg
from paligemma_lib.data import encoded
from paligemma_lib.data.encoded import FORMATS

SVG = (
    b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
)


def image(kind="JPEG", mode="RGB", size=(40, 30), **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("WEBP", "RGB", {"quality": 70}),
        ("WEBP", "RGBA", {"quality": 70}),
        ("TIFF", "RGB", {}),
        ("PPM", "RGB", {}),
        ("AVIF", "RGB", {}),
        ("HEIF", "RGB", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_pass_as_they_are(kind, mode, options):
    data = image(kind, mode, **options)
    checked = check(f"a{FORMATS[kind][0]}", data)
    assert checked.encoded == data
    assert (checked.width, checked.height, checked.note) == (40, 30, "")
    with Image.open(io.BytesIO(checked.preview)) as preview:
        assert (preview.format, preview.mode, preview.size) == ("JPEG", "RGB", (40, 30))


def test_sixteen_bits_are_shown_as_bright_as_they_are():
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(file, "PNG")
    with Image.open(io.BytesIO(check("a.png", file.getvalue()).preview)) as preview:
        assert np.asarray(preview).mean() == pytest.approx(40_000 / 256, abs=2)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_shown_and_told(kind):
    checked = check(f"a.{kind.lower()}", animation(kind))
    assert checked.note == "Of several frames, the first is used."
    with Image.open(io.BytesIO(checked.preview)) as preview:
        red, green, _ = np.asarray(preview).mean(axis=(0, 1))
    assert red > 200 > 50 > green


def test_heic_without_its_plug_in_is_told(monkeypatch):
    monkeypatch.setattr(encoded, "converted_formats", lambda: ())
    monkeypatch.setattr(uploads, "SUFFIXES", {"JPEG": ("jpg",), "PNG": ("png",)})
    with pytest.raises(Refused, match="a HEIC image, which needs pillow-heif here. Accepted are"):
        check("a.heic", image("HEIF"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "AVIF"])
def test_what_is_shown_is_what_the_model_sees(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((48, 32), 0).save(file, kind, exif=exif)
    checked = check("a.png", file.getvalue())
    with Image.open(io.BytesIO(checked.preview)) as preview:
        assert preview.size == (checked.width, checked.height)
        shown = np.asarray(preview.resize((32, 32)), np.float32)
    seen = pg.data.decode_image(checked.encoded, 32, dtype="uint8")
    assert np.abs(seen - shown).mean() < 20  # other ways up are 80 and more apart


def test_a_photograph_of_a_telephone_is_shown_upright_and_without_its_metadata():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    exif[0x010F] = "a telephone"
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, :20] = 255  # white on the left; upright, at the top
    file, other = io.BytesIO(), Image.new("RGB", (10, 10))
    Image.fromarray(pixels).save(
        file, "MPO", exif=exif, save_all=True, append_images=[other], comment="at home"
    )
    checked = check("IMG_1.JPG", file.getvalue())
    assert (checked.width, checked.height, checked.note) == (30, 40, "")
    with Image.open(io.BytesIO(checked.preview)) as preview:
        assert preview.size == (30, 40)
        assert not preview.getexif()
        assert "comment" not in preview.info
        rows = np.asarray(preview).mean(axis=(1, 2))
    assert rows[5] > 200 > 50 > rows[-5]
    seen = pg.data.decode_image(checked.encoded, 16)  # as the service does
    assert seen[0].mean() > 0.9 > -0.9 > seen[-1].mean()


def test_previews_are_small():
    checked = check("a.jpg", image(size=(1500, 900)))
    assert (checked.width, checked.height) == (1500, 900)
    with Image.open(io.BytesIO(checked.preview)) as preview:
        assert preview.size == (640, 384)


def test_exif_that_cannot_be_read_does_no_harm():
    data = image(exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert check("a.jpg", data).width == 40


def test_a_wrong_name_is_told():
    assert check("a.jpg", image("PNG")).note == "Actually a PNG image, and read as one."
    assert check("a", image("GIF", "P")).note == "Actually a GIF image, and read as one."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"x" * (uploads.MAX_BYTES + 1), "at most 20"),
        (b"dear diary", "a text file"),
        ("voilà".encode()[:-1], "a text file"),
        (SVG, "an SVG drawing"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
        (b"\x7fELF\x02\x01\xff\xfe" + bytes(100), "not an image"),
        (image("ICO"), "not an image"),
        (image()[:-200], "damaged or truncated"),
        (image("PNG")[:-200], "damaged or truncated"),
        (image("WEBP")[:-50], "damaged"),
        (image("GIF", "P")[:30], "damaged"),
        (slow_jpeg(), "too slow to decode: it has more than 100 scans"),
        (huge_png(3_000, 3_000), "damaged or truncated"),
        (huge_png(9_000, 8_000), "9,000 x 8,000 pixels, the limit is 64 million"),
        (huge_png(60_000, 60_000), "60,000 x 60,000 pixels, the limit is 64 million"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_refused_is_told_why(data, message):
    with pytest.raises(Refused, match=message):
        check("holiday.jpg", data)


WHOLE = [image(kind, size=(24, 24)) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")]
WHOLE += [animation(kind) for kind in ("GIF", "PNG", "WEBP")]


@pytest.mark.parametrize("whole", WHOLE, ids=lambda data: repr(data[:4]))
def test_damaged_bytes_never_raise_anything_else(whole):
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(data), rng.integers(1, 8))
        data[places] = rng.integers(0, 256, len(places))
        try:
            check("a", data.tobytes())
        except Refused as refused:
            assert str(refused)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
@EXAMPLES
def test_an_upload_is_accepted_or_refused(kind, examples):
    def one(data):
        try:
            assert check("a.jpg", data).preview
        except Refused as refused:
            assert str(refused)

    fuzz(examples, one, damaged(image(kind, size=(24, 24))))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("beach.jpg", "beach.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\me.png", "me.png"),
        ("two\nlines\u202egpj.exe", r"two\nlines\u202egpj.exe"),
        ("x" * 100 + ".jpeg", "x" * 51 + "…xxx.jpeg"),
    ],
)
def test_names_fit_on_a_line(name, shown):
    assert uploads.one_line(name) == shown
    assert len(shown) <= uploads.MAX_NAME
