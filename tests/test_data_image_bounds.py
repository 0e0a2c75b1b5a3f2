"""Images that would keep a decoder busy or exhaust the memory are refused by their headers."""

import io
import re
import time

import numpy as np
import pytest
from data_cases import huge_png, photo, slow_jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paligemma_lib.data.encoded import as_jpeg_or_png, exif_orientation
from paligemma_lib.data.image import decode_image
from paligemma_lib.data.image_bounds import MAX_CHUNKS, MAX_IMAGE_BYTES, MAX_SCANS, check_bounds
from paligemma_lib.report.thumbnails import thumbnail

REFUSED = {
    "scans": (slow_jpeg(MAX_SCANS + 1), "too slow to decode: it has more than 100 scans"),
    "many scans": (slow_jpeg(20_000), "too slow to decode"),
    "large": (slow_jpeg(60, (8000, 8000)), "too slow to decode: it has more than 25 scans"),
    "pixels": (huge_png(), "too large: 9,000 x 8,000 pixels, the limit is 64 million"),
    "jpeg": (photo(0, (9000, 7200), "JPEG", quality=1), "too large: 9,000 x 7,200 pixels"),
    "bytes": (photo(0) + bytes(MAX_IMAGE_BYTES), "too large: 64.0 MiB, the limit is 64 MiB"),
    "gif": (b"GIF89a" + b"\x28\x23\x40\x1f" + photo(0, (9, 9), "GIF")[10:], "9,000 x 8,000 pixels"),
    "text": (b"P2 2100 2100 9\n" + b"1 " * 2100**2, "too slow to decode: save it as PNG"),
}


def with_chunks(chunks: bytes) -> bytes:
    """A PNG with these behind its header."""
    png = photo(0, (9, 9), "PNG")
    return png[:33] + chunks + png[33:]


REFUSED["chunks"] = (
    with_chunks((bytes(4) + b"zzZz" + bytes(4)) * (MAX_CHUNKS + 1)),
    "too slow to decode: it has more than 100,000 chunks",
)
REFUSED |= {
    name: (
        with_chunks(b"\x7f\xff\xff\xff" + name.encode() + b"x\0y"),
        f"damaged: its chunk b'{re.escape(name)}' claims 2,147,483,647 bytes, the whole file has",
    )
    for name in ("tEXt", "zTXt", "iTXt", "eXIf", "any?")
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", REFUSED)
def test_costly_images_are_refused_with_the_reason_wherever_one_is_decoded(kind):
    encoded, message = REFUSED[kind]
    start = time.process_time()
    for decode in (lambda data: decode_image(data, 8), as_jpeg_or_png):
        with pytest.raises(ValueError, match=message):
            decode(encoded)
    if kind != "text":  # Pillow's own reduced decoding shows thumbnails of these
        with pytest.raises(ValueError, match=message):
            thumbnail(encoded, 8)
    assert exif_orientation(encoded) == 1
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "encoded",
    [
        photo(0, form="JPEG"),
        photo(0, form="JPEG", progressive=True),
        slow_jpeg(MAX_SCANS),
        photo(0, form="JPEG", exif=b"Exif\0\0" + b"\xff\xda\0\x02" * 1000),  # as in a thumbnail
        photo(0, form="JPEG") + b"\xff\xda" * 1000,  # behind the image, as in an MPO file
        photo(0, form="JPEG", restart_marker_rows=1),
        photo(0),
        photo(0) + b"\xff" * 1000,  # what others have put behind the image
        photo(0, form="WEBP"),
    ],
    ids=range(9),
)
def test_other_images_pass(encoded):
    check_bounds(encoded)
    assert decode_image(encoded, 8).shape == (8, 8, 3)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 600), st.integers(0, 600))
def test_damaged_bytes_raise_nothing_else(noise, first, last):
    whole = photo(0, (24, 24), "JPEG", progressive=True)
    try:
        check_bounds(whole[:first] + noise + whole[last:])
    except ValueError as error:
        assert str(error).startswith("too ")


def test_a_look_at_the_header_takes_next_to_no_time():
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=95)
    start = time.process_time()
    for _ in range(100):
        check_bounds(file.getvalue())
    assert time.process_time() - start < 1  # decoding takes about 10 ms each


@pytest.mark.timeout(20)
@pytest.mark.parametrize("filling", [b"\xff", b"\xff\x00", b"\x00", b"\xff\xd0"])
def test_a_file_without_markers_is_searched_once(filling):
    check_bounds(b"\xff\xd8" + filling * (1 << 20))
