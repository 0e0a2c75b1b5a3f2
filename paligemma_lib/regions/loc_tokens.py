"""Parses and writes the text of `detect` and `segment`: boxes, masks and labels.

regions = parse_regions("<loc0100><loc0200><loc0500><loc0700> red ball ; <loc0000>...")
regions[0].label, regions[0].box.left
write_regions(regions)

A box is four <locNNNN>: top, left, bottom, right, each a fraction of the image times 1,023. A mask
is sixteen <segNNN> behind them, codes of a VQ-VAE. A label follows, and " ; " between regions.
Source: PaliGemma (arXiv 2407.07726), big_vision's `pp.proj.paligemma.segmentation`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

SEPARATOR = " ; "
MASK_CODES = 16  # <seg> tokens of a mask

_LAST_LOC, _LAST_SEG = 1023, 127
_MOST = 1000  # regions that are read of a text; a caption of 65,536 tokens has no more that matter
_REGION = re.compile(
    r"(?P<locs>(?:<loc[0-9]{4}>){4})\s*(?P<segs>(?:<seg[0-9]{3}>){16})?(?P<label>[^;<]*)"
)
_TOKENS = re.compile(r"(?:<loc[0-9]{4}>|<seg[0-9]{3}>)+ ?")


class Box(NamedTuple):
    """A rectangle, as fractions of the image's height and width, 0 to 1."""

    top: float
    left: float
    bottom: float
    right: float

    @property
    def area(self) -> float:
        """Share of the image."""
        return max(0.0, self.bottom - self.top) * max(0.0, self.right - self.left)

    def iou(self, other: Box) -> float:
        """Returns intersection over union, 0 to 1; 0 for boxes without an area."""
        shared = Box(*map(max, self[:2], other[:2]), *map(min, self[2:], other[2:])).area
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0


@dataclass(frozen=True)
class Region:
    """A part of an image.

    Attributes:
      label: what it shows; "" if the text does not say.
      box: where it is.
      mask: the 16 codes of its mask, each 0 to 127; () if it has none.
    """

    label: str
    box: Box
    mask: tuple[int, ...] = ()


def parse_regions(text: str) -> list[Region]:
    """Returns the regions that a text names, in its order.

    What is no region is passed over, as a model may write anything: fewer than four <loc>, numbers
    beyond 1,023 and 127, and boxes whose bottom or right is not beyond its top and left.
    """
    found = []
    for match in _REGION.finditer(text):
        locs = [int(n) for n in re.findall("[0-9]{4}", match["locs"])]
        mask = tuple(int(n) for n in re.findall("[0-9]{3}", match["segs"] or ""))
        top, left, bottom, right = locs
        valid = max(locs) <= _LAST_LOC and max(mask, default=0) <= _LAST_SEG
        if valid and top < bottom and left < right:
            box = Box(*(n / _LAST_LOC for n in locs))
            found.append(Region(" ".join(match["label"].split()), box, mask))
        if len(found) == _MOST:
            break
    return found


def without_tokens(text: str) -> str:
    """Returns a text without its <loc> and <seg> tokens, for people: "cat ; dog"."""
    if "<" not in text:  # nearly all
        return text
    return _TOKENS.sub("", text).strip()


def write_regions(regions: Iterable[Region]) -> str:
    """Returns the text of regions, as a model is trained to write it.

    Raises:
      ValueError: a label has a character that would end it, a box lies outside of the image or has
        no area at this precision, or a mask has not 16 codes from 0 to 127.
    """
    return SEPARATOR.join(map(_written, regions))


def _written(region: Region) -> str:
    if set(region.label) & set(";<\n\r"):
        raise ValueError(f"the label {region.label!r:.60} has ;, < or a line break: leave them out")
    box, mask = region.box, region.mask
    if not all(0 <= side <= 1 for side in box):
        raise ValueError(f"{region.label!r:.60}: {box} lies outside of the image, 0 to 1")
    locs = [round(side * _LAST_LOC) for side in box]
    if locs[0] >= locs[2] or locs[1] >= locs[3]:
        raise ValueError(f"{region.label!r:.60}: {box} has no area, or its sides are exchanged")
    if mask and (len(mask) != MASK_CODES or not all(0 <= code <= _LAST_SEG for code in mask)):
        raise ValueError(f"{region.label!r:.60}: the mask {mask!r:.60} is not 16 codes, 0 to 127")
    tokens = [*(f"<loc{n:04d}>" for n in locs), *(f"<seg{n:03d}>" for n in mask)]
    return f"{''.join(tokens)} {region.label}".rstrip()
