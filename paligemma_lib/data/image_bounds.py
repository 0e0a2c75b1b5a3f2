"""Refuses images that would take a decoder too much memory or time, before it sees them.

    check_bounds(encoded)             # or raises ValueError, which says why

A file of a few kB may claim billions of pixels. A progressive JPEG is decoded in scans, each of
which may visit every pixel for a few bytes of the file, so that thousands of scans take hours. A
chunk of a PNG may claim 2 GiB, which libpng allocates and clears before it finds the file's end.
Only headers are read here: of JPEG and PNG as they are, of other formats by Pillow.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

MAX_IMAGE_BYTES = 64 << 20  # of an encoded image
MAX_PIXELS = 64_000_000  # as in `flickr8k_tfds`: 8,000 x 8,000, or 192 MB of RGB
# libjpeg writes at most 10 scans, and optimizing encoders little more. libtiff has the same bound;
# libjpeg-turbo's own tests with hostile files stop at 500. A scan takes 2 to 7 ns a pixel, so that
# no image takes more than some seconds: the largest may have 25 scans.
MAX_SCANS = 100
_MAX_PIXELS_IN_SCANS = 25 * MAX_PIXELS
# An encoder writes a chunk for each 8 kB or more. A file of empty ones keeps whoever walks through
# them busy for seconds.
MAX_CHUNKS = 100_000

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# A marker of JPEG but those without a length: FF00 is a byte FF of data, D0 to D7 restart a scan.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_FEW = _MAX_PIXELS_IN_SCANS // MAX_PIXELS  # scans that an image of any size may have
START_OF_SCAN = 0xDA  # what follows all metadata
_END = 0xD9
_SEQUENTIAL = (0xC0, 0xC1)  # frames that are not progressive
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # headers of frames, which have the size


def check_bounds(encoded: bytes) -> None:
    """Checks the bytes of an image file, of any format; of a damaged one, what its header says.

    Raises:
      ValueError: the file is larger than MAX_IMAGE_BYTES, its image has more than MAX_PIXELS pixels
        or MAX_SCANS scans, or a PNG has more than MAX_CHUNKS chunks, or metadata that claim to go
        on behind its end. The message continues "the image is".
    """
    if len(encoded) > MAX_IMAGE_BYTES:
        raise ValueError(
            f"too large: {len(encoded) / 2**20:,.1f} MiB, the limit is {MAX_IMAGE_BYTES >> 20} MiB"
            ". Save a smaller copy"
        )
    if encoded.startswith(_JPEG):
        width, height, scans = _of_jpeg(encoded)
        check_pixels(width, height)
        most = min(MAX_SCANS, _MAX_PIXELS_IN_SCANS // max(width * height, 1))
        if scans > most:
            raise ValueError(
                f"too slow to decode: it has more than {most} scans, encoders write 10. Save a copy"
            )
    elif encoded.startswith(_PNG) and len(encoded) >= 24:
        # The first chunk is the header: 8 bytes of length and name, then width and height.
        check_pixels(*struct.unpack(">II", encoded[16:24]))
        for number, (name, place, length) in enumerate(png_chunks(encoded)):
            if number == MAX_CHUNKS:
                raise ValueError(
                    f"too slow to decode: it has more than {MAX_CHUNKS:,} chunks. Save a copy"
                )
            # Of pixels that are cut off, libpng reads as many as there are.
            if name != b"IDAT" and length > len(encoded) - place:
                raise ValueError(
                    f"damaged: its chunk {name!r} claims {length:,} bytes, the whole file has "
                    f"{len(encoded):,}. Replace the file"
                )


def check_pixels(width: int, height: int) -> None:
    """Raises ValueError, as `check_bounds` does, for an image of more than MAX_PIXELS pixels."""
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"too large: {width:,} x {height:,} pixels, the limit is {MAX_PIXELS // 10**6} million"
            ". Save a smaller copy"
        )


def jpeg_segments(encoded: bytes) -> Iterator[tuple[int, int]]:
    """Yields the marker of each segment of a JPEG, and the place behind it, to the image's end.

    Markers are found as libjpeg finds them, also those between scans. What follows the end of the
    image, such as the further images of an MPO file, is not decoded and does not count.
    """
    place = len(_JPEG)
    while found := _MARKER.search(encoded, place):
        marker, place = found[1][0], found.end()
        if marker == _END:
            return
        yield marker, place
        place += int.from_bytes(encoded[place : place + 2], "big")


def png_chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields each chunk of a PNG to its end: the name, the content's place, the length claimed."""
    at, name = len(_PNG), b""
    while at + 8 <= len(encoded) and name != b"IEND":
        # A chunk is the length of its content, its name, its content, and a checksum.
        length, name = int.from_bytes(encoded[at : at + 4], "big"), encoded[at + 4 : at + 8]
        yield name, at + 8, length
        at += 12 + length


def _of_jpeg(encoded: bytes) -> tuple[int, int, int]:
    """Returns width, height, and the number of scans, which is counted to MAX_SCANS + 1."""
    width = height = scans = components = 0
    sequential = False
    for marker, place in jpeg_segments(encoded):
        if marker in _FRAMES and len(segment := encoded[place : place + 8]) == 8:
            height, width, components = struct.unpack(">HHB", segment[3:])
            sequential = marker in _SEQUENTIAL
        if marker == START_OF_SCAN:
            scans += 1
            # libjpeg takes no second scan if the first of a sequential image has all components.
            if sequential and encoded[place + 2 : place + 3] == bytes([components]):
                break
            # FFDA marks a scan, and may also occur by chance in metadata. Where it is rare, as in
            # nearly all files, the markers of the rest are not searched.
            if scans > MAX_SCANS or (scans == 1 and encoded.count(b"\xff\xda") <= _FEW):
                break
    return width, height, scans
