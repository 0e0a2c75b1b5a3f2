"""Draws the segmentations of COCO as masks: polygons, and lengths of runs (RLE).

    mask_of([[10, 10, 60, 10, 60, 40]], height=100, width=200)             # a triangle
    mask_of({"size": [2, 3], "counts": [1, 2, 3]}, height=2, width=3)      # 0 1 1 0 0 0 by columns
    mask_of({"size": [2, 3], "counts": "123"}, height=2, width=3)          # the same, compressed

A pixel is in a polygon if its centre is. COCO's `maskApi`, the source of the forms, draws polygons
five times as large first, and may differ by pixels at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paligemma_lib.data.sources.coco_instances import is_number
from paligemma_lib.data.sources.json_values import shown

_MOST_NUMBERS = 20_000  # of the polygons of a thing, each edge of which may cross all rows
_FARTHEST = 1e6  # pixels; beyond any image
_BITS, _MOST_PARTS = 5, 7  # of a count in compressed runs: a character has 5 bits, 7 hold any count


def mask_of(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Returns bool[height, width], true where the thing is.

    Args:
      segmentation: polygons, each x, y, x, y, ... in pixels, whose union is the thing; or `size`,
        height and width, and `counts`: lengths of runs without and with the thing in turn, down the
        columns, as a list or as COCO's compressed string.
      height, width: of the image, in pixels.

    Raises:
      ValueError: it is none of these, is of another size, or does not fill the size.
    """
    if isinstance(segmentation, Mapping):
        return _of_runs(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"segmentation is {shown(segmentation)}, expected polygons or RLE")
    mask = np.zeros((height, width), bool)
    most = _MOST_NUMBERS
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(
                f"a polygon is {shown(polygon)}, expected x, y of three or more points"
            )
        most -= len(polygon)
        if most < 0:
            raise ValueError(f"its polygons have more than {_MOST_NUMBERS:,} numbers")
        if not all(is_number(each) and abs(each) <= _FARTHEST for each in polygon):
            raise ValueError(
                f"a polygon is {shown(polygon)}, expected numbers up to {_FARTHEST:,.0f}"
            )
        mask |= _filled(polygon, height, width)
    return mask


def _filled(polygon: Sequence[float], height: int, width: int) -> np.ndarray:
    """Returns bool[height, width], true where a pixel's centre is in a polygon (even-odd rule).

    An edge turns all pixels of a row over whose centres are to its right. Those in between of two
    edges are turned once.
    """
    turned = np.zeros((height, width + 1), np.uint8)
    xs, ys = polygon[::2], polygon[1::2]
    for x0, y0, x1, y1 in zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True):
        # Rows whose centres, row + 0.5, are from the upper end on, and above the lower one.
        first, end = (math.ceil(y - 0.5) for y in sorted((y0, y1)))
        rows = np.arange(max(first, 0), min(end, height))
        if len(rows):
            at = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            turned[rows, np.ceil(at - 0.5).clip(0, width).astype(np.int64)] ^= 1
    # Sums wrap around at 256, which keeps whether they are odd.
    return (turned.cumsum(axis=1, dtype=np.uint8) & 1).astype(bool)[:, :width]


def _of_runs(runs: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    size, counts = runs.get("size"), runs.get("counts")
    if size != [height, width]:
        raise ValueError(f"the size of its RLE is {shown(size)}, the image has [{height}, {width}]")
    if isinstance(counts, str):
        counts = _uncompressed(counts, height * width)
    if not isinstance(counts, list) or not all(type(each) is int and each >= 0 for each in counts):
        raise ValueError(
            f"the counts of its RLE are {shown(counts)}, expected whole numbers from 0"
        )
    if sum(counts) != height * width:
        raise ValueError(
            f"the counts of its RLE sum to {shown(sum(counts))}, expected {height} x {width}"
        )
    pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return pixels.reshape(width, height).T


def _uncompressed(text: str, pixels: int) -> list[int]:
    """Returns the counts in COCO's string: 5 bits a character, the least first, from "0" on.

    The bit 32 says that more follow; the highest bit of the last five is the sign. From the fourth
    count on, it is the difference from the count two before.
    """
    counts: list[int] = []
    value, parts, total = 0, 0, 0
    for character in text:
        code = ord(character) - ord("0")
        if not 0 <= code < 64 or parts == _MOST_PARTS:
            raise ValueError(f"the counts of its RLE are {shown(text)!r}, which is not COCO's form")
        value |= (code & 31) << _BITS * parts
        parts += 1
        if code & 32:
            continue
        if code & 16:
            value -= 1 << _BITS * parts
        if len(counts) > 2:
            value += counts[-2]
        total += value
        if value < 0 or total > pixels:
            raise ValueError(f"the counts of its RLE sum to more than {pixels:,}, or are below 0")
        counts.append(value)
        value, parts = 0, 0
    if parts:
        raise ValueError(f"the counts of its RLE, {shown(text)!r}, end within a number")
    return counts
