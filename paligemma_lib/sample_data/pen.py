"""Provides a pen that draws scenes and objects in fractions of a box.

page = Pen(canvas, (0, 0, *canvas.size), rng)
page.within((0.2, 0.5, 0.4, 0.9)).ellipse(0, 0, 1, 1, (214, 38, 38))
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from paligemma_lib.sample_data.scenes import Box

FACTOR = 3  # supersampling: sides of a pixel of the image in pixels of the canvas
NEAREST = Image.Resampling.NEAREST
Colour = tuple[int, ...]  # red, green, blue and optionally alpha, 0..255
Point = tuple[float, float]


class Pen:
    """Draws in a box with the upper left corner (0, 0) and the lower right corner (1, 1)."""

    def __init__(self, canvas: Image.Image, box: Box, rng: random.Random, flip: bool = False):
        self.canvas = canvas
        self.box = box  # pixels
        self.rng = rng
        self.flip = flip  # whether left and right are swapped
        self.width, self.height = box[2] - box[0], box[3] - box[1]
        self.brush = ImageDraw.Draw(canvas, "RGBA")
        self.stencil: ImageDraw.ImageDraw | None = None

    def within(self, box: Box, flip: bool = False) -> Pen:
        (left, top), (right, bottom) = self._at([box[:2], box[2:]])
        return Pen(self.canvas, (left, top, right, bottom), self.rng, flip)

    def start_stencil(self) -> Image.Image:
        """Returns an image "L" of the canvas' size, 255 wherever this pen draws opaquely from now.

        What lets the background through, such as foam, is left out.
        """
        stencil = Image.new("L", self.canvas.size)
        self.stencil = ImageDraw.Draw(stencil)
        return stencil

    def _brushes(self, fill: Colour) -> Iterator[tuple[ImageDraw.ImageDraw, Colour | int]]:
        """Yields each brush with what it draws for a colour."""
        yield self.brush, fill
        if self.stencil is not None and len(fill) == 3:
            yield self.stencil, 255

    def _at(self, points: list[Point]) -> list[Point]:
        left, top, right, _ = self.box
        across = -self.width if self.flip else self.width
        start = right if self.flip else left
        return [(start + x * across, top + y * self.height) for x, y in points]

    def _corners(self, x0: float, y0: float, x1: float, y1: float) -> list[Point]:
        # Pillow wants the left corner first, which is the right one before flipping.
        return self._at([(x1, y0), (x0, y1)] if self.flip else [(x0, y0), (x1, y1)])

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        for brush, ink in self._brushes(fill):
            brush.ellipse(self._corners(x0, y0, x1, y1), ink)

    def block(
        self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float = 0
    ) -> None:
        """Draws a rectangle with rounded corners; `radius` is a fraction of the box's height."""
        corners = self._corners(x0, y0, x1, y1)
        for brush, ink in self._brushes(fill):
            brush.rounded_rectangle(corners, radius * self.height, ink)

    def polygon(self, points: list[Point], fill: Colour) -> None:
        for brush, ink in self._brushes(fill):
            brush.polygon(self._at(points), ink)

    def line(self, points: list[Point], fill: Colour, width: float) -> None:
        """Draws a line; `width` is a fraction of the box's height."""
        pixels = max(FACTOR, int(width * self.height))  # at least one pixel of the image
        for brush, ink in self._brushes(fill):
            brush.line(self._at(points), ink, pixels, joint="curve")

    def gradient(self, top: float, bottom: float, colours: np.ndarray) -> None:
        """Fills a band of the whole canvas, from `colours[0]` at its top to `colours[1]`."""
        y0, y1 = round(top * self.height), round(bottom * self.height)
        rows = np.linspace(colours[0], colours[1], y1 - y0).clip(0, 255).astype(np.uint8)
        band = Image.fromarray(rows[:, None]).resize((self.canvas.width, y1 - y0), NEAREST)
        self.canvas.paste(band, (0, y0))


def tint(colour: Colour, by: float) -> Colour:
    """Returns the colour made lighter for `by` in 0..1, darker for `by` in -1..0."""
    return tuple(int(c + ((255 if by > 0 else 0) - c) * abs(by)) for c in colour)
