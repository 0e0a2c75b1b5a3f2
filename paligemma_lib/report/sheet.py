"""Draws a contact sheet, one image of many images with their captions, to view without a browser.

sheet = contact_sheet([("Images/1.jpg", "a dog runs"), ("Images/2.jpg", "two girls play")])
sheet.save("sheet.png")
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from paligemma_lib.regions import MaskCodec, without_tokens
from paligemma_lib.report.region_drawing import with_regions
from paligemma_lib.report.thumbnails import ImageLike, thumbnail
from paligemma_lib.runtime.bounds import whole
from paligemma_lib.runtime.visible_text import visible

CELL = 256  # pixels, side of the square that holds an image; all sizes here are in pixels
GAP = 20
FONT_SIZE = 15
LINE = 20
MAX_LINES = 6  # per caption
MAX_CHARACTERS = 600  # more than six lines hold; limits the time that a very long text takes
PAPER, INK, QUIET, RED = "#fbfaf7", "#211f1b", "#625d54", "#b3261e"


def contact_sheet(
    captioned: Sequence[tuple[ImageLike, str]],
    *,
    columns: int = 4,
    remarks: Sequence[str] | None = None,
    codec: MaskCodec | None = None,
) -> Image.Image:
    """Draws images in rows, each with its caption below, wrapped and cut off after six lines.

    The font is Pillow's own, so the sheet looks the same on every machine. It has the letters of
    English: accents that it lacks are dropped, and letters of other scripts become boxes.

    Args:
      captioned: pairs of image and caption, whose boxes are drawn. A note replaces an image that
        cannot be read.
      columns: number of images in a row.
      remarks: what to say in red below each caption, such as which words are not true; "": nothing.
      codec: turns the codes of masks in captions into pixels; None: only boxes are drawn.

    Returns:
      An RGB image; with 4 columns it is 1,124 pixels wide.

    Raises:
      ValueError: there are no images, no columns, or another number of remarks.
    """
    columns = whole("contact_sheet: columns", columns, 1)
    if not captioned:
        raise ValueError("contact_sheet: there are no images, expected at least one")
    remarks = [""] * len(captioned) if remarks is None else remarks
    if len(remarks) != len(captioned):
        raise ValueError(
            f"contact_sheet: {len(remarks)} remarks, expected one for each of the "
            f"{len(captioned)} images"
        )
    columns = min(columns, len(captioned))
    rows = [captioned[k : k + columns] for k in range(0, len(captioned), columns)]
    texts = [[_wrapped(without_tokens(text)) for _, text in row] for row in rows]
    wrapped = [_wrapped(text) if text else [] for text in remarks]
    notes = [wrapped[k : k + columns] for k in range(0, len(captioned), columns)]
    heights = [
        CELL + GAP + LINE * max(len(text) + len(note) for text, note in zip(*row, strict=True))
        for row in zip(texts, notes, strict=True)
    ]
    size = (columns * (CELL + GAP) + GAP, sum(heights) + GAP * len(rows) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for row, lines, noted, height in zip(rows, texts, notes, heights, strict=True):
        for column, ((image, caption), text, note) in enumerate(
            zip(row, lines, noted, strict=True)
        ):
            left, below = GAP + column * (CELL + GAP), top + CELL + GAP // 2
            _paste(sheet, draw, image, caption, left, top, codec)
            for part, ink in ((text, INK), (note, RED)):
                draw.multiline_text(
                    (left, below), "\n".join(part), fill=ink, font=_font(), spacing=5
                )
                below += LINE * len(part)
        top += height + GAP
    return sheet


def _paste(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    image: ImageLike,
    caption: str,
    left: int,
    top: int,
    codec: MaskCodec | None,
) -> None:
    try:
        small = with_regions(thumbnail(image, CELL), caption, codec=codec)
    except (ValueError, FileNotFoundError) as error:
        note = "\n".join(_wrapped(f"No image: {error}"))
        draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline=QUIET)
        draw.multiline_text((left + 8, top + 8), note, fill=QUIET, font=_font(), spacing=5)
        return
    # Images stand on the lower edge of their cells, next to their captions.
    sheet.paste(small, (left, top + CELL - small.height))


def _wrapped(text: str) -> list[str]:
    """Wraps a text into lines no wider than a cell, breaking words that are wider."""
    lines, line = [], ""
    for word in _drawable(text[:MAX_CHARACTERS]).split():
        while word:
            joined = f"{line} {word}" if line else word
            if _width(joined) <= CELL:
                line, word = joined, ""
            elif line:
                lines.append(line)
                line = ""
            else:
                # At least one character, however wide, so that the loop ends.
                fits = 1
                while fits < len(word) and _width(word[: fits + 1]) <= CELL:
                    fits += 1
                lines.append(word[:fits])
                word = word[fits:]
        if len(lines) > MAX_LINES:  # one line too many is enough to know that the text is cut off
            break
    lines.append(line)
    if len(lines) <= MAX_LINES:
        return lines
    last = lines[MAX_LINES - 1]
    while _width(f"{last}\N{HORIZONTAL ELLIPSIS}") > CELL:
        last = last[:-1]
    return [*lines[: MAX_LINES - 1], f"{last.rstrip()}\N{HORIZONTAL ELLIPSIS}"]


def _drawable(text: str) -> str:
    """Drops the accents of letters that the font lacks, if it has the plain letters."""
    return "".join(c if _has(c) else _plain(c) for c in _seen(text))


def _seen(text: str) -> str:
    """Returns the text with what would act on a terminal as an escape, but for white space."""
    return " ".join(map(visible, text.split()))


def _plain(character: str) -> str:
    if unicodedata.category(character) == "Pd":  # dashes of all kinds
        return "-"
    # NFKD splits a letter from its accents, which are combining characters.
    base = "".join(
        c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)
    )
    return base if all(map(_has, base)) else character


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)


@functools.cache
def _has(character: str) -> bool:
    missing = _font().getmask("\U000f0000")  # of private use, so drawn as the box
    return character.isspace() or bytes(_font().getmask(character)) != bytes(missing)


def _width(text: str) -> float:
    return _font().getlength(text)
