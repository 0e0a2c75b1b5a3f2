"""Draws a scene: background, then objects, antialiased by drawing three times as large.

    picture = drawing.draw(sample_data.compose(seed=0, index=42), random.Random(7))
    picture.save("scene.jpg", quality=92)

`rng` decides what no caption speaks of: tints, hills, waves, which way a dog looks, noise.
"""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw
from scenes import AIR, SHORE, WATER, Box, Scene

FACTOR = 3  # supersampling
NEAREST = Image.Resampling.NEAREST
Colour = tuple[int, ...]  # red, green, blue and perhaps alpha, 0..255
Point = tuple[float, float]
PALETTE: dict[str, Colour] = {
    "red": (214, 38, 38),
    "orange": (245, 134, 24),
    "yellow": (250, 212, 38),
    "green": (28, 138, 62),
    "blue": (32, 84, 214),
    "purple": (136, 54, 178),
    "white": (248, 248, 246),
    "black": (38, 38, 44),
}
DAY: tuple[Colour, Colour] = ((104, 176, 236), (206, 232, 248))  # above, at the top and below
ABOVE: dict[str, tuple[Colour, Colour]] = {
    "snow": ((150, 180, 210), (214, 226, 238)),
    "night": ((22, 28, 74), (70, 76, 138)),
    "room": ((228, 214, 196), (236, 224, 206)),
}
BELOW: dict[str, tuple[Colour, Colour]] = {  # from the horizon to the bottom
    "meadow": ((172, 214, 116), (132, 190, 86)),
    "beach": ((240, 222, 176), (226, 200, 146)),
    "sea": ((92, 176, 206), (36, 108, 156)),
    "snow": ((240, 245, 250), (222, 232, 242)),
    "night": ((68, 100, 92), (44, 68, 66)),
    "room": ((198, 156, 112), (176, 132, 90)),
}
SKIN: tuple[Colour, ...] = ((246, 208, 176), (222, 170, 128), (158, 104, 70), (104, 68, 48))
HAIR: tuple[Colour, ...] = ((40, 30, 26), (110, 70, 36), (206, 160, 84))
WOOD: Colour = (120, 78, 48)
CREAM: Colour = (252, 240, 206)
GREY: Colour = (150, 152, 160)
DARK: Colour = (44, 42, 50)
GLASS: Colour = (176, 216, 238)
WHITE: Colour = (255, 255, 255)


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """The scene as an RGB picture, or a single-channel one ("L") where it is greyscale."""
    canvas = Image.new("RGB", (scene.width * FACTOR, scene.height * FACTOR))
    page = Pen(canvas, (0, 0, *canvas.size), rng)
    _draw_background(page, scene)
    objects = [(box, group) for group in scene.groups for box in group.boxes]
    for box, group in sorted(objects, key=lambda item: item[0][3]):  # the nearest last
        if group.kind not in AIR + WATER:
            page.within(box).ellipse(-0.04, 0.93, 1.04, 1.04, (20, 20, 40, 70))  # shadow
        OBJECTS[group.kind](page.within(box, rng.random() < 0.5), PALETTE[group.colour])
    noise = np.random.default_rng(rng.getrandbits(64))
    grain = noise.standard_normal((scene.height, scene.width, 1), np.float32)
    pixels = np.asarray(canvas.reduce(FACTOR)) + np.float32(rng.uniform(1, 4)) * grain
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return picture.convert("L") if scene.greyscale else picture


class Pen:
    """Draws in a box whose upper left corner is (0, 0) and whose lower right one is (1, 1)."""

    def __init__(self, canvas: Image.Image, box: Box, rng: random.Random, flip: bool = False):
        self.canvas = canvas
        self.box = box  # pixels
        self.rng = rng
        self.flip = flip  # left and right exchanged
        self.width, self.height = box[2] - box[0], box[3] - box[1]
        self.brush = ImageDraw.Draw(canvas, "RGBA")

    def within(self, box: Box, flip: bool = False) -> Pen:
        (left, top), (right, bottom) = self._at([box[:2], box[2:]])
        return Pen(self.canvas, (left, top, right, bottom), self.rng, flip)

    def _at(self, points: list[Point]) -> list[Point]:
        left, top, right, _ = self.box
        across = -self.width if self.flip else self.width
        start = right if self.flip else left
        return [(start + x * across, top + y * self.height) for x, y in points]

    def _corners(self, x0: float, y0: float, x1: float, y1: float) -> list[Point]:
        return self._at([(x1, y0), (x0, y1)] if self.flip else [(x0, y0), (x1, y1)])

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        self.brush.ellipse(self._corners(x0, y0, x1, y1), fill)

    def block(
        self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float = 0
    ) -> None:
        """A rectangle with rounded corners: `radius` is a fraction of the height."""
        corners = self._corners(x0, y0, x1, y1)
        self.brush.rounded_rectangle(corners, radius * self.height, fill)

    def polygon(self, points: list[Point], fill: Colour) -> None:
        self.brush.polygon(self._at(points), fill)

    def line(self, points: list[Point], fill: Colour, width: float) -> None:
        """`width` is a fraction of the height."""
        pixels = max(FACTOR, int(width * self.height))
        self.brush.line(self._at(points), fill, pixels, joint="curve")

    def gradient(self, top: float, bottom: float, colours: np.ndarray) -> None:
        """Fills a band of the whole canvas: `colours` are those of its top and bottom."""
        y0, y1 = round(top * self.height), round(bottom * self.height)
        rows = np.linspace(colours[0], colours[1], y1 - y0).clip(0, 255).astype(np.uint8)
        band = Image.fromarray(rows[:, None]).resize((self.canvas.width, y1 - y0), NEAREST)
        self.canvas.paste(band, (0, y0))


def tint(colour: Colour, by: float) -> Colour:
    """Lighter for `by` in 0..1, darker for `by` in -1..0."""
    return tuple(int(c + ((255 if by > 0 else 0) - c) * abs(by)) for c in colour)


def _draw_background(page: Pen, scene: Scene) -> None:
    rng, kind, horizon = page.rng, scene.background, scene.horizon
    spread = 28 if kind == "room" else 10  # walls differ more than skies
    above = np.array(ABOVE.get(kind, DAY)) + [rng.uniform(-spread, spread) for _ in "RGB"]
    below = np.array(BELOW[kind]) + rng.uniform(-8, 8)
    page.gradient(0, horizon, above)
    _draw_detail(page, scene)
    hilly = kind in ("meadow", "snow", "night")
    for shade in (-0.12, -0.06) if hilly else ():
        centre, half, high = rng.random(), rng.uniform(0.4, 0.7), rng.uniform(0.04, 0.12)
        hill = tint(tuple(below[0]), shade)
        page.ellipse(centre - half, horizon - high, centre + half, horizon + high, hill)
    page.gradient(horizon, 1, below)
    if hilly:
        for _ in range(14):  # tufts
            x, y = rng.random(), rng.uniform(horizon + 0.05, 1)
            tuft = [(x, y), (x + 0.02, y - 0.012), (x + 0.04, y)]
            page.line(tuft, tint(tuple(below[1]), -0.08), 0.006)
    elif kind == "room":
        for row in range(1, 4):  # floor boards, the nearer the broader
            y = horizon + (1 - horizon) * row * row / 12
            page.line([(0, y), (1, y)], tint(tuple(below[0]), -0.12), 0.006)
        page.block(0, horizon - 0.025, 1, horizon, CREAM)
    else:
        shore = horizon + SHORE if kind == "beach" else 1
        page.gradient(horizon, shore, np.array(BELOW["sea"]) + rng.uniform(-8, 8))
        if kind == "beach":
            page.line([(0, shore), (1, shore)], WHITE, 0.012)
        for _ in range(round(40 * (shore - horizon))):  # waves
            x, y, length = rng.random(), rng.uniform(horizon, shore), rng.uniform(0.03, 0.1)
            page.line([(x, y), (x + length, y)], (255, 255, 255, 90), 0.006)


def _draw_detail(page: Pen, scene: Scene) -> None:
    pen = page.within(scene.detail_box)
    if scene.detail == "sun":
        pen.ellipse(-0.2, -0.2, 1.2, 1.2, (255, 244, 180, 110))
        pen.ellipse(0, 0, 1, 1, (255, 226, 92))
    elif scene.detail == "moon":
        pen.ellipse(0, 0, 1, 1, (250, 244, 214))
        for x, y, r in ((0.35, 0.35, 0.12), (0.65, 0.55, 0.16), (0.4, 0.72, 0.09)):
            pen.ellipse(x - r, y - r, x + r, y + r, (226, 218, 186))
    elif scene.detail == "window":
        pen.block(0, 0, 1, 1, WHITE)
        for x, y in ((0.07, 0.07), (0.53, 0.07), (0.07, 0.53), (0.53, 0.53)):
            pen.block(x, y, x + 0.40, y + 0.40, GLASS)
    elif scene.detail == "clouds":
        for i in range(3):
            x, y = page.rng.uniform(0.02, 0.12) + 0.32 * i, page.rng.uniform(0.03, 0.16)
            cloud = page.within((x, y, x + 0.24, y + 0.14))
            for left, top, right in ((0.0, 0.35, 0.5), (0.2, 0.0, 0.75), (0.5, 0.3, 1.0)):
                cloud.ellipse(left, top, right, 1, (250, 251, 254))


def _ball(pen: Pen, colour: Colour) -> None:
    pen.ellipse(0, 0, 1, 1, tint(colour, -0.3))
    pen.ellipse(0.03, 0.03, 0.97, 0.97, colour)
    pen.ellipse(0.2, 0.14, 0.46, 0.36, tint(colour, 0.6))


def _house(pen: Pen, colour: Colour) -> None:
    roof = tint(WOOD, -0.2) if colour != PALETTE["black"] else tint(WOOD, 0.3)
    pen.block(0.70, 0.06, 0.82, 0.4, tint(GREY, -0.3))  # chimney
    pen.block(0.08, 0.4, 0.92, 1, tint(colour, -0.35))
    pen.block(0.1, 0.4, 0.9, 0.99, colour)
    pen.polygon([(0, 0.45), (0.5, 0), (1, 0.45)], roof)
    pen.block(0.42, 0.64, 0.6, 0.99, tint(WOOD, -0.4))  # door
    for x in (0.17, 0.67):
        pen.block(x, 0.56, x + 0.17, 0.76, CREAM)
        pen.line([(x + 0.085, 0.56), (x + 0.085, 0.76)], DARK, 0.015)


def _tree(pen: Pen, colour: Colour) -> None:
    pen.polygon([(0.44, 0.5), (0.56, 0.5), (0.62, 1), (0.38, 1)], WOOD)
    for shade, grow in ((-0.3, 0.0), (0.0, 0.025)):
        for x0, y0, x1, y1 in ((0, 0.28, 0.56, 0.68), (0.44, 0.28, 1, 0.68), (0.16, 0, 0.84, 0.5)):
            box = (x0 + grow, y0 + grow, x1 - grow, y1 - grow)
            pen.ellipse(*box, tint(colour, shade))
    pen.ellipse(0.28, 0.08, 0.52, 0.24, tint(colour, 0.25))


def _car(pen: Pen, colour: Colour) -> None:
    pen.polygon([(0.18, 0.46), (0.3, 0.04), (0.68, 0.04), (0.82, 0.46)], tint(colour, -0.2))
    pen.polygon([(0.26, 0.44), (0.34, 0.14), (0.48, 0.14), (0.48, 0.44)], GLASS)
    pen.polygon([(0.52, 0.44), (0.52, 0.14), (0.65, 0.14), (0.74, 0.44)], GLASS)
    pen.block(0, 0.42, 1, 0.84, colour, 0.14)
    pen.ellipse(0.93, 0.5, 1, 0.64, (255, 236, 150))
    for x in (0.14, 0.66):
        pen.ellipse(x, 0.62, x + 0.19, 1, DARK)
        pen.ellipse(x + 0.055, 0.73, x + 0.135, 0.89, GREY)


def _dog(pen: Pen, colour: Colour) -> None:
    dark = tint(colour, -0.35) if colour != PALETTE["black"] else tint(colour, 0.25)
    pen.line([(0.14, 0.45), (0.04, 0.3), (0.05, 0.14)], dark, 0.09)  # tail
    for x, shade in ((0.2, dark), (0.62, dark), (0.12, colour), (0.54, colour)):
        pen.block(x, 0.6, x + 0.11, 1, shade, 0.04)
    pen.block(0.1, 0.38, 0.68, 0.76, colour, 0.17)
    pen.polygon([(0.5, 0.45), (0.62, 0.15), (0.8, 0.4), (0.66, 0.62)], colour)  # neck
    pen.block(0.58, 0.08, 0.84, 0.42, colour, 0.14)
    pen.block(0.7, 0.22, 1, 0.42, colour, 0.09)
    pen.ellipse(0.93, 0.2, 1, 0.3, DARK if colour != PALETTE["black"] else GREY)
    pen.ellipse(0.56, 0.06, 0.68, 0.4, dark)  # ear
    pen.ellipse(0.74, 0.14, 0.79, 0.21, DARK if colour != PALETTE["black"] else WHITE)
    pen.block(0.57, 0.42, 0.75, 0.49, PALETTE["red"], 0.02)  # collar


def _child(pen: Pen, colour: Colour) -> None:
    skin, hair = pen.rng.choice(SKIN), pen.rng.choice(HAIR)
    for x in (0.26, 0.53):
        pen.block(x, 0.66, x + 0.2, 0.97, (70, 80, 110))
        pen.block(x - 0.02, 0.94, x + 0.22, 1, DARK)
    for x, hand in ((0.3, 0.08), (0.7, 0.92)):
        pen.line([(x, 0.4), (hand, 0.6)], tint(colour, -0.15), 0.08)
        pen.ellipse(hand - 0.09, 0.56, hand + 0.09, 0.65, skin)
    pen.block(0.2, 0.34, 0.8, 0.74, colour, 0.07)
    pen.ellipse(0.2, 0, 0.8, 0.3, hair)
    pen.ellipse(0.24, 0.06, 0.76, 0.35, skin)
    pen.ellipse(0.38, 0.18, 0.45, 0.22, DARK)
    pen.ellipse(0.56, 0.18, 0.63, 0.22, DARK)


def _boat(pen: Pen, colour: Colour) -> None:
    pen.line([(0.5, 0), (0.5, 0.7)], tint(WOOD, -0.2), 0.03)
    pen.polygon([(0.54, 0.04), (0.54, 0.6), (0.96, 0.6)], CREAM)
    pen.polygon([(0.46, 0.14), (0.46, 0.6), (0.12, 0.6)], tint(CREAM, -0.1))
    pen.polygon([(0, 0.66), (1, 0.66), (0.82, 0.97), (0.18, 0.97)], tint(colour, -0.3))
    pen.polygon([(0.03, 0.68), (0.97, 0.68), (0.83, 0.9), (0.17, 0.9)], colour)
    pen.line([(0.05, 0.97), (0.95, 0.97)], (255, 255, 255, 170), 0.03)


def _duck(pen: Pen, colour: Colour) -> None:
    pen.polygon([(0, 0.4), (0.3, 0.6), (0.1, 0.8)], tint(colour, -0.2))  # tail
    pen.ellipse(0.06, 0.42, 0.82, 0.98, tint(colour, -0.2))
    pen.ellipse(0.06, 0.42, 0.82, 0.92, colour)
    pen.polygon([(0.78, 0.18), (1, 0.3), (0.78, 0.38)], PALETTE["orange"])  # bill
    pen.ellipse(0.48, 0.02, 0.86, 0.5, colour)
    pen.ellipse(0.2, 0.5, 0.6, 0.78, tint(colour, -0.2))  # wing
    pen.ellipse(0.7, 0.14, 0.76, 0.22, DARK if colour != PALETTE["black"] else WHITE)
    pen.line([(0, 0.95), (0.9, 0.95)], (255, 255, 255, 170), 0.03)


def _kite(pen: Pen, colour: Colour) -> None:
    pen.line([(0.5, 0.6), (0.62, 0.74), (0.42, 0.86), (0.54, 1)], DARK, 0.02)
    for x, y in ((0.62, 0.74), (0.42, 0.86)):
        pen.polygon([(x - 0.1, y - 0.03), (x + 0.1, y + 0.03), (x + 0.1, y - 0.03)], colour)
    pen.polygon([(0.5, 0), (1, 0.28), (0.5, 0.66), (0, 0.28)], tint(colour, -0.3))
    pen.polygon([(0.5, 0.03), (0.95, 0.28), (0.5, 0.62), (0.05, 0.28)], colour)
    pen.polygon([(0.5, 0.03), (0.5, 0.28), (0.05, 0.28)], tint(colour, 0.35))
    pen.polygon([(0.5, 0.28), (0.95, 0.28), (0.5, 0.62)], tint(colour, 0.35))


def _balloon(pen: Pen, colour: Colour) -> None:
    pen.line([(0.5, 0.68), (0.42, 0.8), (0.58, 0.9), (0.5, 1)], DARK, 0.015)
    pen.polygon([(0.5, 0.62), (0.38, 0.7), (0.62, 0.7)], tint(colour, -0.3))
    pen.ellipse(0, 0, 1, 0.66, tint(colour, -0.25))
    pen.ellipse(0.03, 0.015, 0.97, 0.645, colour)
    pen.ellipse(0.2, 0.08, 0.42, 0.24, tint(colour, 0.6))


OBJECTS = {
    "ball": _ball,
    "house": _house,
    "tree": _tree,
    "car": _car,
    "dog": _dog,
    "child": _child,
    "boat": _boat,
    "duck": _duck,
    "kite": _kite,
    "balloon": _balloon,
}
