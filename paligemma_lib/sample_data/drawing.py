"""Draws a scene: first the background, then the objects, antialiased by 3 x 3 supersampling.

    image = draw(compose(seed=0, index=42), random.Random(7))
    image.save("scene.jpg", quality=92)
    masks = draw_masks(compose(seed=0, index=42), random.Random(7))   # of the things in this image

`rng` decides what captions do not mention: tints, hills, waves, which way a dog looks, noise.
"""

import random
from collections.abc import Iterator

import numpy as np
from PIL import Image

from paligemma_lib.sample_data.objects import CREAM, GLASS, OBJECTS, PALETTE, WHITE
from paligemma_lib.sample_data.pen import FACTOR, Colour, Pen, tint
from paligemma_lib.sample_data.scenes import AIR, SHORE, WATER, Box, Scene

DAY: tuple[Colour, Colour] = ((104, 176, 236), (206, 232, 248))  # sky at the top and at the horizon
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


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """Returns the scene as an RGB image, or as a single-channel one ("L") if it is greyscale."""
    page = _page(scene, rng)
    for _, pen, kind, colour in _things(page, scene):
        OBJECTS[kind](pen, colour)
    # Noise of 1 to 4 levels, the same in all three channels, so that it adds no colour.
    noise = np.random.default_rng(rng.getrandbits(64))
    grain = noise.standard_normal((scene.height, scene.width, 1), np.float32)
    pixels = np.asarray(page.canvas.reduce(FACTOR)) + np.float32(rng.uniform(1, 4)) * grain
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image.convert("L") if scene.greyscale else image


def draw_masks(scene: Scene, rng: random.Random) -> dict[Box, np.ndarray]:
    """Returns bool[height, width] for the box of each thing, true where `draw` draws the thing.

    A pixel belongs to a thing that covers at least half of it. Shadows and foam do not.

    Args:
      scene: its things do not overlap, as in all that `compose` returns.
      rng: as it was before `draw`, since it decides, for instance, which way a dog looks.
    """
    masks = {}
    for box, pen, kind, colour in _things(_page(scene, rng), scene):
        stencil = pen.start_stencil()
        OBJECTS[kind](pen, colour)
        masks[box] = np.asarray(stencil.reduce(FACTOR)) > 127
    return masks


def _page(scene: Scene, rng: random.Random) -> Pen:
    """Returns a pen for the whole canvas, with the background drawn."""
    canvas = Image.new("RGB", (scene.width * FACTOR, scene.height * FACTOR))
    page = Pen(canvas, (0, 0, *canvas.size), rng)
    _draw_background(page, scene)
    return page


def _things(page: Pen, scene: Scene) -> Iterator[tuple[Box, Pen, str, Colour]]:
    """Yields box, pen, kind and colour of each thing when it is to be drawn, on its shadow."""
    things = [(box, group) for group in scene.groups for box in group.boxes]
    for box, group in sorted(things, key=lambda item: item[0][3]):  # by lower edge: nearest last
        if group.kind not in AIR + WATER:
            page.within(box).ellipse(-0.04, 0.93, 1.04, 1.04, (20, 20, 40, 70))  # shadow
        pen = page.within(box, page.rng.random() < 0.5)
        yield box, pen, group.kind, PALETTE[group.colour]


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
        for row in range(1, 4):  # floor boards, broader towards the viewer
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
