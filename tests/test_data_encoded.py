"""What passes through Pillow before TensorFlow, and which way up it is."""

import io

import numpy as np
import pillow_heif
import pytest
from data_cases import photo
from PIL import Image, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from paligemma_lib import data as pg_data
from paligemma_lib.data import encoded
from paligemma_lib.data.encoded import as_jpeg_or_png, exif_orientation, needs_heif
from paligemma_lib.testing import tiny_tokenizer

pillow_heif.register_heif_opener()
CONVERTED = [name for name in encoded.FORMATS if name not in ("JPEG", "PNG")]


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_jpeg_and_png_stay_as_they_are(form):
    data = photo(0, form=form)
    assert as_jpeg_or_png(data) is data
    assert as_jpeg_or_png(data[:200]) == data[:200]  # for TensorFlow to refuse


@pytest.mark.parametrize("form", CONVERTED)
def test_others_become_png(form):
    data = photo(0, form=form)
    with (
        Image.open(io.BytesIO(data)) as before,
        Image.open(io.BytesIO(as_jpeg_or_png(data))) as now,
    ):
        assert (now.format, now.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(now), np.asarray(before.convert("RGB")))


@pytest.mark.parametrize("form", CONVERTED)
def test_what_is_damaged_becomes_nothing(form):
    whole = np.frombuffer(photo(0, form=form), np.uint8)
    assert as_jpeg_or_png(whole[:100].tobytes()) == b""
    random = np.random.default_rng(0)
    for _ in range(100):  # and never raises
        data = whole.copy()
        data[random.integers(0, len(data), 4)] = random.integers(0, 256, 4)
        assert isinstance(as_jpeg_or_png(data.tobytes()), bytes)


@pytest.mark.parametrize("data", [b"", b"no image", photo(0, form="ICO")])
def test_what_is_no_image_becomes_nothing(data):
    assert as_jpeg_or_png(data) == b""
    assert exif_orientation(data) == 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize(("stored", "found"), [(1, 1), (6, 6), (8, 8), (0, 1), (9, 1)])
def test_the_orientation_is_read_and_kept(form, stored, found):
    exif = Image.Exif()
    exif[0x0112] = stored
    assert exif_orientation(as_jpeg_or_png(photo(0, form=form, exif=exif))) == found


def test_an_orientation_in_xmp_or_behind_the_pixels_is_read():
    xmp = b"<rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation='6'/>"
    xmp = xmp.replace(b"'", b'"')
    assert exif_orientation(photo(0, form="JPEG", xmp=xmp)) == 6
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = photo(0, form="PNG", exif=exif)
    start = whole.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4])
    last = whole.index(b"IEND") - 4
    assert exif_orientation(whole[:start] + whole[end:last] + whole[start:end] + whole[last:]) == 6


@pytest.mark.parametrize("kind", [TiffTags.FLOAT, TiffTags.RATIONAL, TiffTags.ASCII])
def test_an_orientation_of_another_type_is_a_number_or_none(kind):
    ifd = ImageFileDirectory_v2(prefix=b"II")
    ifd.tagtype[0x0112] = kind
    ifd[0x0112] = "6" if kind == TiffTags.ASCII else 6.0
    whole = photo(0, form="JPEG", exif=b"Exif\0\0" + b"II*\0\x08\0\0\0" + ifd.tobytes(8))
    found = exif_orientation(whole)
    assert type(found) is int and found in (1, 6)
    pg_data.decode_image(whole, 16)


def test_exif_that_cannot_be_read_is_none():
    whole = photo(0, form="JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert exif_orientation(whole) == 1


@pytest.mark.parametrize("form", ["TIFF", "PPM"])
def test_16_bits_of_grey_become_8(form):
    levels = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, form)
    pixels = pg_data.decode_image(file.getvalue(), 8, dtype="uint8")
    np.testing.assert_array_equal(pixels, np.repeat((levels >> 8)[..., None], 3, axis=2))


def test_floats_are_refused():
    file = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(file, "TIFF")
    assert as_jpeg_or_png(file.getvalue()) == b""


def test_heic_without_its_plug_in_tells_the_cure(monkeypatch):
    data = photo(0, form="HEIF")
    assert not needs_heif(data)
    monkeypatch.setattr(encoded, "converted_formats", lambda: ("GIF",))
    assert as_jpeg_or_png(data) == b"" and not needs_heif(photo(0, form="AVIF"))
    with pytest.raises(ValueError, match="HEIC needs pip install pillow-heif"):
        pg_data.decode_image(data, 16)


def batches_of(folder):
    source = pg_data.from_image_files([str(folder)])
    return pg_data.eval_batches(
        source, tiny_tokenizer(), image_size=16, text_len=24, batch_size=2, captions="none"
    )


def test_batches_hold_what_pillow_decodes(tmp_path):
    colours = Image.open(io.BytesIO(photo(0))).quantize(8)
    transparent = colours.convert("RGB")
    transparent.putalpha(200)
    colours.save(tmp_path / "palette.bmp")
    transparent.save(tmp_path / "transparent.webp", lossless=True)
    (batch,) = batches_of(tmp_path)
    assert batch["image_id"].tolist() == ["palette.bmp", "transparent.webp"]
    plain = io.BytesIO()
    colours.convert("RGB").save(plain, "PNG")
    for pixels in batch["image"]:
        np.testing.assert_array_equal(pixels, pg_data.decode_image(plain.getvalue(), 16))


def test_what_pillow_does_not_decode_is_named(tmp_path):
    (tmp_path / "a.webp").write_bytes(photo(0, form="WEBP")[:-30])
    with pytest.raises(ValueError, match=r"image a\.webp \(.*a\.webp\) is not a complete JPEG"):
        next(batches_of(tmp_path))
