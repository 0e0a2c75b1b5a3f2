"""Draws the objects of scenes; each object fills its box.

OBJECTS["dog"](page.within(box, flip=True), PALETTE["red"])
"""

from collections.abc import Callable, Mapping

from paligemma_lib.sample_data.pen import Colour, Pen, tint

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
SKIN: tuple[Colour, ...] = ((246, 208, 176), (222, 170, 128), (158, 104, 70), (104, 68, 48))
HAIR: tuple[Colour, ...] = ((40, 30, 26), (110, 70, 36), (206, 160, 84))
WOOD: Colour = (120, 78, 48)
CREAM: Colour = (252, 240, 206)
GREY: Colour = (150, 152, 160)
DARK: Colour = (44, 42, 50)
GLASS: Colour = (176, 216, 238)
WHITE: Colour = (255, 255, 255)


# Every function draws from back to front, in fractions of the box: (0, 0) is its upper left corner,
# (1, 1) its lower right one.


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
    # A darker shade of black cannot be seen: details of a black dog are lighter.
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


OBJECTS: Mapping[str, Callable[[Pen, Colour], None]] = {
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
