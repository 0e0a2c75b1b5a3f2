"""Masks of drawn things are those of the image, and belong to one thing each."""

import random

import numpy as np
import pytest
from PIL import Image

from paligemma_lib.sample_data import compose, draw, drawing
from paligemma_lib.sample_data.drawing import draw_masks
from paligemma_lib.sample_data.objects import OBJECTS
from paligemma_lib.sample_data.scenes import AIR, WATER

SCENES = [compose(7, index) for index in range(60)]


def pixels(scene, number):
    image = draw(scene, random.Random(number)).convert("RGB")
    return np.asarray(image).astype(int)


def grown(mask):
    """A mask and its neighbours."""
    around = np.pad(mask, 1)
    shifted = [np.roll(around, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return np.any(shifted, axis=0)[1:-1, 1:-1]


def test_masks_are_what_drawing_the_things_changes(monkeypatch):
    chosen = [
        (number, scene)
        for number, scene in enumerate(SCENES)
        # A child takes random numbers, so that what follows would differ without it.
        if not any(group.kind == "child" for group in scene.groups)
    ]
    with_things = [pixels(scene, number) for number, scene in chosen]
    for kind in OBJECTS:
        monkeypatch.setitem(drawing.OBJECTS, kind, lambda pen, colour: None)
    without = [pixels(scene, number) for number, scene in chosen]
    monkeypatch.undo()
    for (number, scene), one, other in zip(chosen, with_things, without, strict=True):
        changed = (one != other).any(-1)
        masks = draw_masks(scene, random.Random(number))
        assert masks.keys() == {box for group in scene.groups for box in group.boxes}
        whole = np.any([*masks.values()], axis=0)
        assert whole.shape == (scene.height, scene.width)
        assert changed[whole].mean() > 0.97  # some things have their background's colour
        if not any(group.kind in WATER for group in scene.groups):  # whose foam is no thing
            # Points and strings may cover less than half of a pixel.
            assert changed[~grown(whole)].sum() <= 0.01 * whole.sum()


def test_a_pixel_belongs_to_one_thing():
    for number, scene in enumerate(SCENES):
        masks = draw_masks(scene, random.Random(number)).values()
        assert np.sum([*masks], axis=0).max() == 1


def test_a_mask_fills_its_box():
    for number, scene in enumerate(SCENES):
        for box, mask in draw_masks(scene, random.Random(number)).items():
            rows, columns = np.nonzero(mask)
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            sides = (scene.width, scene.height) * 2
            expected = [side * most for side, most in zip(box, sides, strict=True)]
            # A dog's upper edge is that of its head, a tenth of its height below the box.
            slack = 2 + 0.1 * (expected[3] - expected[1])
            assert found == pytest.approx(expected, abs=slack)


def test_shadows_and_foam_are_no_part_of_a_thing():
    for number, scene in enumerate(SCENES):
        for group in scene.groups:
            if group.kind in AIR:
                continue
            for box, mask in draw_masks(scene, random.Random(number)).items():
                below = int(box[3] * scene.height) + 2
                assert box not in group.boxes or not mask[below:].any()


def test_drawing_masks_leaves_the_image_as_it_is():
    scene = SCENES[0]
    before = draw(scene, random.Random(3))
    draw_masks(scene, random.Random(3))
    assert isinstance(before, Image.Image)
    assert before.tobytes() == draw(scene, random.Random(3)).tobytes()
