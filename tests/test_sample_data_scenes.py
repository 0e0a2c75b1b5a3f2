"""Tests of the sample data's scenes: what is in them, where, and how it is drawn."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from sample_data_cases import COUNT

from paligemma_lib import sample_data
from paligemma_lib.sample_data import drawing, objects, scenes


def test_scenes_vary() -> None:
    all_scenes = [sample_data.compose(0, index) for index in range(COUNT)]
    groups = [group for scene in all_scenes for group in scene.groups]
    assert {scene.background for scene in all_scenes} == set(drawing.BELOW)
    assert {group.kind for group in groups} == set(objects.OBJECTS)
    assert {group.colour for group in groups} == set(objects.PALETTE)
    assert {len(group.boxes) for group in groups} == {1, 2, 3, 4}
    assert {group.place for group in groups} == {"left", "middle", "right"}
    assert {len(scene.groups) for scene in all_scenes} == {1, 2, 3}
    small = sum(group.size == "small" for group in groups) / len(groups)
    assert 0.3 < small < 0.7


def test_a_few_are_greyscale_or_of_odd_sizes() -> None:
    all_scenes = [sample_data.compose(0, index) for index in range(1500)]
    assert 0.02 < np.mean([scene.greyscale for scene in all_scenes]) < 0.06
    shapes = np.array([(scene.width, scene.height) for scene in all_scenes])
    ratio = shapes[:, 0] / shapes[:, 1]
    usual = (ratio > 1.2) & (ratio < 1.6) & (shapes[:, 0] > 200)
    assert 0.85 < usual.mean() < 0.97
    assert ratio.min() < 0.8
    assert ratio.max() > 2.5
    assert shapes.min() < 100


def test_things_lie_inside_the_image_and_hide_nothing() -> None:
    for index in range(COUNT):
        scene = sample_data.compose(0, index)
        boxes = np.array(
            [box for group in scene.groups for box in group.boxes]
            + [scene.detail_box] * (scene.detail in ("sun", "moon", "window"))
        )
        assert boxes.min() >= 0
        assert boxes.max() <= 1
        for i, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[:i]:
                apart = right <= other[0] or other[2] <= left
                assert apart or bottom <= other[1] or other[3] <= top, index


def test_things_stand_on_their_own_ground() -> None:
    for index in range(COUNT):
        scene = sample_data.compose(0, index)
        ashore = scene.horizon + (scenes.SHORE if scene.background == "beach" else 0)
        for group in scene.groups:
            for _, top, _, bottom in group.boxes:
                if group.kind in ("kite", "balloon"):
                    assert top < 0.25
                elif (group.kind, scene.background) == ("boat", "beach"):
                    assert scene.horizon < bottom < ashore
                else:
                    assert ashore < bottom, index


def test_large_things_are_clearly_larger_than_small_ones() -> None:
    heights: dict[tuple[str, str], list[float]] = {}
    for index in range(COUNT):
        scene = sample_data.compose(0, index)
        unit = min(1.0, 0.75 * scene.width / scene.height)
        for group in scene.groups:
            _, top, _, bottom = group.boxes[0]
            heights.setdefault((group.kind, group.size), []).append((bottom - top) / unit)
    for kind in objects.OBJECTS:
        assert min(heights[kind, "large"]) > 1.4 * max(heights[kind, "small"])


def test_image_has_the_size_and_mode_of_its_scene() -> None:
    found = set()
    for index in range(80):
        scene = sample_data.compose(0, index)
        image = drawing.draw(scene, random.Random(index))
        assert image.size == (scene.width, scene.height)
        assert image.mode == ("L" if scene.greyscale else "RGB")
        found.add(image.mode)
    assert found == {"L", "RGB"}


@pytest.mark.parametrize("kind", sorted(objects.OBJECTS))
def test_things_are_drawn_in_their_box_and_colour(kind: str) -> None:
    box = (0.3, 0.3, 0.7, 0.8)
    names, palette = zip(*objects.PALETTE.items(), strict=True)
    for colour in names:
        group = scenes.Group(kind, colour, "large", (box,))
        empty = scenes.Scene(200, 150, False, "meadow", 0.5, "", (0, 0, 0.1, 0.1), ())
        full = dataclasses.replace(empty, groups=(group,))
        pixels = np.asarray(drawing.draw(full, random.Random(1)), float)
        before = np.asarray(drawing.draw(empty, random.Random(1)), float)
        drawn = np.abs(pixels - before).max(-1) > 40  # beyond the noise
        assert drawn[45:120, 60:140].mean() > 0.25
        drawn[43:124, 57:143] = False  # its box and its shadow
        assert not drawn.any()
        distance = np.linalg.norm(pixels[45:120, 60:140, None] - np.array(palette), axis=-1)
        near = [names[k] for k in distance.argmin(-1)[distance.min(-1) < 40]]
        assert near.count(colour) > 0.1 * 75 * 80
