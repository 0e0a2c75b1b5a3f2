"""Whatever the bytes of an image are, they decode, or an error of ours says why not."""

import io
import struct
import zlib

import numpy as np
import pytest
from data_cases import photo
from fuzzing import EXAMPLES, damaged, fuzz
from hypothesis import strategies as st
from PIL import Image

from flickr8k_tfds.image_checks import examine
from flickr8k_tfds.image_formats import open_image, orientation
from flickr8k_tfds.png_encoding import as_png
from paligemma_lib.data import decode_image
from paligemma_lib.data.encoded import as_jpeg_or_png, exif_orientation, upright_size

SIZE = (8, 6)


def with_exif(form: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a dog"
    return photo(1, SIZE, form, exif=exif)


def valid() -> dict[str, bytes]:
    forms = ("PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
    found = {form: photo(0, SIZE, form) for form in forms}
    return found | {
        "JPEG": photo(0, SIZE, "JPEG"),
        "progressive": photo(0, (32, 24), "JPEG", progressive=True),
        "exif": with_exif("JPEG"),
        "exif of PNG": with_exif("PNG"),
    }


def check(data: bytes) -> None:
    try:
        pixels = decode_image(data, 8)
        assert pixels.shape == (8, 8, 3) and np.isfinite(pixels).all()
    except ValueError as error:
        assert str(error)
    try:
        usual = as_jpeg_or_png(data)
        assert exif_orientation(usual) in range(1, 9)
        upright_size(usual)
    except ValueError as error:
        assert str(error)
    facts = examine(data, "x.jpg", apply_exif=True)
    if not facts.fault:
        assert as_png(data, side=None, apply_exif=True).startswith(b"\x89PNG")
        assert orientation(open_image(data)) in (None, *range(1, 9))


@EXAMPLES
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", valid())
def test_damaged_bytes(examples, form):
    fuzz(examples, check, damaged(valid()[form]))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@EXAMPLES
@pytest.mark.filterwarnings("ignore")
def test_chunks_of_a_png(examples):
    png = photo(0, SIZE, "PNG")
    after_header = 8 + 25
    names = [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"tRNS", b"IDAT", b"IHDR"]

    def changed(kind, data, length):
        made = chunk(kind, data)
        if length is not None:
            made = struct.pack(">I", length) + made[4:]
        check(png[:after_header] + made + png[after_header:])

    lengths = st.one_of(st.none(), st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))
    fuzz(examples, changed, st.sampled_from(names), st.binary(max_size=40), lengths)


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_compressed_chunk_that_unpacks_to_much_does_no_harm(kind):
    bomb = zlib.compress(bytes(256 << 20), 9)
    head = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind]
    png = photo(0, SIZE, "PNG")
    data = png[:33] + chunk(kind, head + bomb) + png[33:]
    check(data)
    assert decode_image(data, 8).shape == (8, 8, 3)


def test_many_chunks_end_soon():
    png = photo(0, SIZE, "PNG")
    check(png[:33] + chunk(b"zzZz", b"") * 100_000 + png[33:])


def test_exif_of_every_kind_of_number():
    for value in (0, 9, -1, 2**31, (1, 0), 6.5, "6", b"\6"):
        exif = Image.Exif()
        exif[0x0112] = value
        try:
            encoded = photo(0, SIZE, "JPEG", exif=exif)
        except Exception:
            continue  # Pillow does not write it
        assert exif_orientation(encoded) in range(1, 9)
        assert Image.open(io.BytesIO(encoded)).size == SIZE
