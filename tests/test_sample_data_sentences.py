"""Tests of the sample data's sentences: true in every word, and as varied as people's.

Whatever is true of a scene is struck out of its captions until no word is left.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np
import pytest
from sample_data_cases import COUNT, sentences_of

from paligemma_lib.sample_data import objects, scenes

SIZES = {"small": ("small ", "little ", ""), "large": ("large ", "big ", "")}
NOUNS = {  # of one, of several; others add an s
    "child": [("child", "children"), ("kid", "kids")],
    "boat": [("boat", "boats"), ("sailboat", "sailboats")],
}
VERBS = {
    "ball": ("lies", "lie"),
    "house": ("stands", "stand"),
    "tree": ("grows", "grow"),
    "car": ("is parked", "are parked"),
    "dog": ("stands", "stand"),
    "child": ("stands", "stand"),
    "boat": ("sails", "sail"),
    "duck": ("swims", "swim"),
    "kite": ("flies", "fly"),
    "balloon": ("floats", "float"),
}
ON_LAND = {
    "meadow": ["on the grass", "in the grass"],
    "beach": ["on the sand"],
    "snow": ["in the snow", "on the snow"],
    "night": ["on the ground"],
    "room": ["on the floor"],
}
SETTINGS = {  # a background or a detail -> phrases
    "meadow": ["in a meadow", "in a field"],
    "beach": ["at the beach", "by the sea"],
    "sea": ["out at sea", "at sea"],
    "snow": ["on a snowy day", "in winter"],
    "night": ["at night", "in the dark"],
    "room": ["in a room", "indoors"],
    "sun": ["on a sunny day", "under the sun"],
    "clouds": ["on a cloudy day", "under the clouds"],
    "moon": ["under a full moon", "under the moon"],
    "window": ["in a room with a window"],
    "": [],
}


def true_names(scene: scenes.Scene, group: scenes.Group) -> list[str]:
    count, kind = len(group.boxes), group.kind
    sizes = ("tall ", "") if (kind, group.size) == ("child", "large") else SIZES[group.size]
    colour = "" if scene.greyscale else group.colour
    names = []
    for size in sizes:
        for noun in (nouns[count > 1] for nouns in NOUNS.get(kind, [(kind, f"{kind}s")])):
            name = f"{size}{colour} {noun}" if kind != "child" else f"{size}{noun} in {colour}"
            name = name.strip().replace("  ", " ").removesuffix(" in ").removesuffix(" in")
            article = "an" if name.startswith("orange") else "a"
            names.append(f"{[article, 'two', 'three', 'four'][count - 1]} {name}")
    return names


def true_statements(scene: scenes.Scene) -> Iterator[tuple[str, str]]:
    """Phrases with what is left when they are struck out. A group's name leaves its number."""
    for number, group in enumerate(scene.groups):
        yield from ((name, f"<{number}>") for name in true_names(scene, group))
    several = len(scene.groups[0].boxes) > 1
    yield "there are <0>" if several else "there is <0>", "<0>"
    for number, group in enumerate(scene.groups):
        flies, swims = group.kind in ("kite", "balloon"), group.kind in ("boat", "duck")
        yield f"<{number}> {VERBS[group.kind][len(group.boxes) > 1]}", f"<{number}>"
        if flies:
            places = ["in the air"] if scene.background == "room" else ["in the air", "in the sky"]
        else:
            places = ["on the water", "on the waves"] if swims else ON_LAND[scene.background]
        centre = np.mean([(box[0] + box[2]) / 2 for box in group.boxes])
        if centre < 0.45:
            places = ["at the top left" if flies else "on the left", *places]
        if centre > 0.55:
            places = ["at the top right" if flies else "on the right", *places]
        if 0.35 < centre < 0.65:
            places = [*places, "at the top" if flies else "in the middle"]
        yield from ((f"<{number}> {place}", f"<{number}>") for place in places)
    for (a, one), (b, other) in itertools.permutations(enumerate(scene.groups), 2):
        mine, its = np.array(one.boxes), np.array(other.boxes)
        if "kite" not in (one.kind, other.kind) and "balloon" not in (one.kind, other.kind):
            gap = its[:, 0].min() - mine[:, 2].max()
            if gap > 0:
                yield f"<{a}> to the left of <{b}>", ""
                yield f"<{b}> to the right of <{a}>", ""
            if 0 < gap < 0.25:
                yield f"<{a}> next to <{b}>", ""
                yield f"<{b}> next to <{a}>", ""
        over = mine[:, 0].min() < its[:, 2].max() and its[:, 0].min() < mine[:, 2].max()
        if over and mine[:, 3].max() < its[:, 1].min():
            yield f"<{a}> above <{b}>", ""
            yield f"<{b}> under <{a}>", ""
    for setting in SETTINGS[scene.detail] + SETTINGS[scene.background]:
        yield setting, ""


def untrue(scene: scenes.Scene, caption: str) -> str:
    """What no true statement accounts for."""
    rest = caption.lower().removesuffix(" .")
    for phrase, left in true_statements(scene):
        rest = re.sub(rf"(?<!\w){phrase}(?!\w)", left, rest)
    return re.sub(r"<\d>|\band\b|\bwith\b|,| ", "", rest)


def test_captions_are_true_in_every_word() -> None:
    for index in range(COUNT):
        scene, captions = sentences_of(index)
        for caption in captions:
            assert not untrue(scene, caption), f"{caption!r} of {scene}"


@pytest.mark.parametrize(
    "caption",
    [
        "Two red balls and a house .",
        "Two blue balls .",
        "Three red balls .",
        "Two large red balls .",
        "Two red balls on the right .",
        "Two red balls lies on the grass .",
        "Two red balls lie on the grass to the right of a child in blue .",
        "Two red balls on a sunny day .",
        "Two red balls at the beach .",
        "There is two red balls in a field .",
    ],
)
def test_the_check_of_truth_finds_untruth(caption: str) -> None:
    balls = scenes.Group("ball", "red", "small", ((0.1, 0.8, 0.2, 0.9), (0.22, 0.8, 0.32, 0.9)))
    child = scenes.Group("child", "blue", "large", ((0.7, 0.5, 0.8, 0.9),))
    scene = scenes.Scene(320, 240, False, "meadow", 0.5, "", (0, 0, 1, 1), (balls, child))
    told = "In a field , two little red balls lie on the grass to the left of a tall kid in blue ."
    assert not untrue(scene, told)
    assert untrue(scene, caption)


def test_captions_of_greyscale_images_name_no_colour() -> None:
    told = [sentences_of(index) for index in range(1500)]
    grey = [caption for scene, captions in told if scene.greyscale for caption in captions]
    assert grey
    colours = set(objects.PALETTE) | {"grey", "gray", "brown", "pink"}
    assert not [caption for caption in grey if colours & set(caption.lower().split())]


def test_captions_are_five_different_sentences_spaced_as_flickr8ks() -> None:
    for index in range(COUNT):
        _, captions = sentences_of(index)
        assert len(set(captions)) == 5
        for caption in captions:
            assert re.fullmatch(r"[A-Z][a-z]*( [a-z]+| ,)* \.", caption)
            assert len(caption.split()) <= 40


def test_captions_differ_in_detail_and_seldom_repeat_between_images() -> None:
    told = [sentences_of(index)[1] for index in range(COUNT)]
    lengths = np.array([sorted(len(caption.split()) for caption in five) for five in told])
    assert np.all(lengths[:, -1] >= 1.4 * lengths[:, 0])
    distinct = {caption for five in told for caption in five}
    assert len(distinct) > 0.9 * 5 * COUNT
    assert len({word for caption in distinct for word in caption.lower().split()}) < 150
