"""Composes scenes: kinds, colours, numbers and places of objects, before anything is drawn.

    scene = compose(seed=0, index=42)

Scene `index` depends only on the seed and on `index`. Most scenes are 256 to 320 pixels wide; some
are greyscale, tall, very wide or small, as real photographs are.
"""

import random
from collections.abc import Sequence

from paligemma_lib.sample_data.scenes import AIR, SHORE, WATER, Box, Group, Scene

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
COLOURS_OF = {
    "dog": ("black", "white", "orange", "yellow"),
    "tree": ("green", "red", "orange", "yellow"),
}
UNSEEN = {("snow", "white"), ("night", "black")}  # colours lost against the background
LAND = ("ball", "house", "tree", "car", "dog", "child")
KINDS_ON = {  # background -> kinds on the surface, kinds in the air
    "meadow": (LAND, AIR),
    "beach": (("ball", "dog", "child", "boat"), AIR),
    "sea": (WATER, AIR),
    "snow": (LAND, AIR),
    "night": (("house", "tree", "car", "dog", "child"), ("balloon",)),
    "room": (("ball", "dog", "child"), ("balloon",)),
}
MIXES = ((1, 0), (2, 0), (2, 0), (1, 1), (2, 1))  # numbers of groups on the surface and in the air
COUNTS = (1, 1, 1, 2, 2, 3, 4)
DETAILS = {"room": ("window", ""), "night": ("moon", "")}  # others: DAYLIGHT; "" is no detail
DAYLIGHT = ("sun", "clouds", "")
HORIZONS = {"sea": (0.36, 0.46), "beach": (0.34, 0.40), "room": (0.62, 0.70)}  # others: HILLS
HILLS = (0.44, 0.56)
SHAPES = {  # kind -> height of a middle-sized object, relative to the image; width / height
    "ball": (0.24, 1.0),
    "house": (0.38, 1.1),
    "tree": (0.45, 0.72),
    "car": (0.20, 2.0),
    "dog": (0.26, 1.3),
    "child": (0.40, 0.5),
    "boat": (0.34, 1.0),
    "duck": (0.25, 1.15),
    "kite": (0.30, 0.72),
    "balloon": (0.33, 0.55),
}
SIZES = {"small": (0.70, 0.78), "large": (1.15, 1.30)}  # range of factors on the middle size
FORMATS = ((256, 192), (320, 240), (288, 216), (300, 200), (320, 213))  # pixels
ODD_FORMATS = ((192, 256), (200, 300), (480, 160), (240, 240), (96, 72))


def compose(seed: int, index: int) -> Scene:
    """Returns scene `index` of the endless sequence of `seed`, a pure function of both."""
    rng = random.Random(f"{seed}/{index}/scene")
    background = rng.choice(tuple(KINDS_ON))
    surface_kinds, air_kinds = KINDS_ON[background]
    on_surface, in_air = rng.choice(MIXES)
    kinds = rng.sample(surface_kinds, on_surface) + rng.sample(air_kinds, in_air)
    width, height = rng.choice(ODD_FORMATS if rng.random() < 0.08 else FORMATS)
    greyscale = rng.random() < 0.04
    horizon = rng.uniform(*HORIZONS.get(background, HILLS))
    detail = rng.choice(DETAILS.get(background, DAYLIGHT))
    unit = min(height, 0.75 * width)  # pixels; objects keep their shape in odd formats
    scale = unit / width, unit / height
    while True:  # a few tries, until no box overlaps another or leaves the image
        detail_box = _detail_box(rng, detail, scale)
        groups = _arrange(rng, kinds, background, horizon, scale)
        boxes = [box for group in groups for box in group.boxes]
        boxes += [detail_box] if detail in ("sun", "moon", "window") else []
        inside = all(min(box) > 0.01 and max(box) < 0.99 for box in boxes)
        hidden = any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
        # Captions say that the first group on the surface is to the left of the second.
        in_order = on_surface == 1 or groups[0].is_left_of(groups[1])
        if inside and in_order and not hidden:
            return Scene(width, height, greyscale, background, horizon, detail, detail_box, groups)


def _arrange(
    rng: random.Random,
    kinds: Sequence[str],
    background: str,
    horizon: float,
    scale: tuple[float, float],
) -> tuple[Group, ...]:
    """Returns groups at random places, which may still overlap or leave the image."""
    # One centre for each group: with two groups on the surface one is left and one is right, a
    # single one is left, in the middle or right. `Group.place` tells these ranges apart.
    centres = [rng.uniform(0.2, 0.3), rng.uniform(0.7, 0.8)]
    if sum(kind not in AIR for kind in kinds) == 1:
        centres = [rng.uniform(*rng.choice([(0.15, 0.34), (0.44, 0.56), (0.66, 0.85)]))]
    # In the air: straight above a group on the surface, or anywhere.
    centres.append(rng.choice([*centres, rng.uniform(0.15, 0.85)]))
    groups = []
    for kind, centre in zip(kinds, centres, strict=False):
        size = rng.choice(tuple(SIZES))
        count = rng.choice(COUNTS)
        height = SHAPES[kind][0] * rng.uniform(*SIZES[size])
        width = height * SHAPES[kind][1] * scale[0]
        height *= scale[1]
        ground = horizon + 0.04
        if kind in AIR:
            bottom = rng.uniform(0.03, 0.20) + height
        elif (kind, background) == ("boat", "beach"):
            bottom = horizon + rng.uniform(0.10, 0.14)
        else:
            ground += SHORE * (background == "beach")
            bottom = rng.uniform(max(0.72, ground + 0.04), 0.95)
        columns = 2 if count > 2 and rng.random() < 0.5 else count
        if bottom - 1.1 * height < ground:
            columns = count  # a second row would stand above the ground
        boxes = []
        for i in range(count):
            row, column = divmod(i, columns)
            # Rows are centred, with gaps of 0.12 widths: three objects in two columns are two below
            # and one above the middle between them.
            in_row = min(columns, count - row * columns)
            x = centre + (column - (in_row - 1) / 2) * width * 1.12
            y = bottom - row * height * 1.1 + rng.uniform(-0.01, 0.01)
            boxes.append((x - width / 2, y - height, x + width / 2, y))
        colours = COLOURS_OF.get(kind, COLOURS)
        colour = rng.choice([c for c in colours if (background, c) not in UNSEEN])
        groups.append(Group(kind, colour, size, tuple(boxes)))
    return tuple(groups)


def _detail_box(rng: random.Random, detail: str, scale: tuple[float, float]) -> Box:
    side = 0.30 if detail == "window" else 0.16
    width, height = side * scale[0], side * scale[1]
    left, top = rng.uniform(0.02, 0.98 - width), rng.uniform(0.04, 0.12)
    return left, top, left + width, top + height


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
