"""Draws the regions that a text names into its image.

drawn = with_regions(image, "<loc0100><loc0200><loc0500><loc0700> dog", references=["<loc0105>..."])

Boxes of the text have solid lines and their labels, a colour for each label; boxes by people are
dashed. With a codec, masks are laid over the image in the colours of their labels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paligemma_lib.regions import MaskCodec, Region, parse_regions, region_masks
from paligemma_lib.runtime.visible_text import visible

# Bright on photographs, and told apart by people who see fewer colours (Okabe and Ito, 2008).
COLOURS = ("#e69f00", "#56b4e9", "#f0e442", "#cc79a7", "#009e73", "#d55e00")
_DARK, _LIGHT = "#1c1b18", "#ffffff"
_WIDTH = 2  # pixels of a line, with a dark one of the same width around it
_DASH = 6  # pixels of a dash, and of the gap behind it
_FONT_SIZE = 13
_VEIL = 140  # of 255, how much of a mask's colour covers the image
_MAX_LABEL = 30  # characters
_MOST = 100  # boxes of a text that are drawn; more hide the image


def with_regions(
    image: Image.Image,
    text: str,
    references: Iterable[str] = (),
    codec: MaskCodec | None = None,
) -> Image.Image:
    """Returns the image with its regions, or `image` itself if no text names any.

    Args:
      image: RGB.
      text: by the model.
      references: by people.
      codec: turns the codes of masks in `text` into pixels; None: boxes alone are drawn.
    """
    said = parse_regions(text)[:_MOST]
    true = [region for each in references for region in parse_regions(each)][:_MOST]
    if not said and not true:
        return image
    labels = list(dict.fromkeys(region.label for region in said))
    colours = [COLOURS[labels.index(region.label) % len(COLOURS)] for region in said]
    drawn = image.copy()
    if codec is not None:
        _veil(drawn, said, colours, codec)
    brush = ImageDraw.Draw(drawn)
    for region in true:
        _dashed(brush, _pixels(region, image.size))
    for region, colour in zip(said, colours, strict=True):
        left, top, right, bottom = _pixels(region, image.size)
        around = (left - 1, top - 1, right + 1, bottom + 1)
        brush.rectangle(around, outline=_DARK, width=_WIDTH + 2)
        brush.rectangle((left, top, right, bottom), outline=colour, width=_WIDTH)
    for region, colour in zip(said, colours, strict=True):  # above all lines
        _label(brush, region.label, colour, _pixels(region, image.size), image.size)
    return drawn


def _veil(
    drawn: Image.Image, regions: Sequence[Region], colours: Sequence[str], codec: MaskCodec
) -> None:
    """Lays the masks of regions over an image."""
    masks = region_masks(regions, codec, height=drawn.height, width=drawn.width)
    for mask, colour in zip(masks, colours, strict=True):
        if mask is not None:
            cover = Image.fromarray(np.where(mask, _VEIL, 0).astype(np.uint8))
            drawn.paste(Image.new("RGB", drawn.size, colour), mask=cover)


def _pixels(region: Region, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom, within the image."""
    width, height = size
    box = region.box
    left, right = (min(round(side * width), width - 1) for side in (box.left, box.right))
    top, bottom = (min(round(side * height), height - 1) for side in (box.top, box.bottom))
    return left, top, right, bottom


def _dashed(brush: ImageDraw.ImageDraw, box: Sequence[int]) -> None:
    left, top, right, bottom = box
    for x in range(left, right, 2 * _DASH):
        for y in (top, bottom):
            _dash(brush, (x, y, min(x + _DASH, right), y))
    for y in range(top, bottom, 2 * _DASH):
        for x in (left, right):
            _dash(brush, (x, y, x, min(y + _DASH, bottom)))


def _dash(brush: ImageDraw.ImageDraw, ends: tuple[int, int, int, int]) -> None:
    brush.line(ends, _DARK, _WIDTH + 1)
    brush.line(ends, _LIGHT, 1)


def _label(
    brush: ImageDraw.ImageDraw,
    label: str,
    colour: str,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
) -> None:
    """Writes a label at the upper left corner of a box, inside of the image."""
    if not label:
        return
    text, font = visible(label)[:_MAX_LABEL], _font()
    across, down = font.getbbox(text)[2:]
    left = max(0, min(box[0], size[0] - int(across) - 6))
    top = max(0, box[1] - int(down) - 4)
    brush.rectangle((left, top, left + across + 5, top + down + 3), fill=colour)
    brush.text((left + 3, top + 1), text, fill=_DARK, font=font)


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE)
