"""Tests of what each patch of a drawn scene shows."""

import dataclasses

import numpy as np
from sample_data_cases import sentences_of

from paligemma_lib.sample_data import compose
from paligemma_lib.sample_data.patch_facts import CLASSES, FACTS, patch_facts
from paligemma_lib.sample_data.scenes import Group


def shown(scene, fact: str, side: int = 8) -> np.ndarray:
    """The classes by name, str[side, side]."""
    return np.array(CLASSES[fact])[patch_facts(scene, side)[FACTS.index(fact)]].reshape(side, side)


def of(*groups: Group, **changes):
    scene, _ = sentences_of(0)
    changes = {"greyscale": False, "background": "snow", "detail": "sun", **changes}
    return dataclasses.replace(scene, groups=groups, **changes)


BALLS = Group("ball", "red", "small", ((0.0, 0.5, 0.25, 0.75), (0.3, 0.5, 0.45, 0.75)))
TREE = Group("tree", "green", "large", ((0.75, 0.25, 1.0, 1.0),))


def test_patches_that_a_box_covers_by_a_quarter_show_its_object():
    assert shown(of(BALLS, TREE), "kind", side=4).tolist() == [
        ["", "", "", ""],
        ["", "", "", "tree"],
        ["ball", "ball", "", "tree"],
        ["", "", "", "tree"],
    ]


def test_facts_are_those_of_the_group_and_of_the_whole_image():
    scene = of(BALLS, TREE)
    told = {fact: {*shown(scene, fact, side=4)[2, [0, 1, 3]]} for fact in FACTS}
    assert told == {
        "kind": {"ball", "tree"},
        "colour": {"red", "green"},
        "number": {"two", "one"},
        "size": {"small", "large"},
        "place": {"left", "right"},
        "first": {"first", ""},
        "background": {"snow"},
        "detail": {"sun"},
    }
    assert {*shown(scene, "background").ravel()} == {"snow"}
    assert {*shown(of(BALLS, greyscale=True), "colour").ravel()} == {""}


def test_an_object_smaller_than_a_quarter_of_a_patch_is_shown_by_one():
    tiny = dataclasses.replace(BALLS, boxes=((0.01, 0.01, 0.02, 0.02),))
    assert (shown(of(tiny), "kind", side=2) == [["ball", ""], ["", ""]]).all()


def test_every_group_has_patches_and_one_that_is_first():
    for index in range(200):
        scene = compose(0, index)
        kinds, first = shown(scene, "kind"), shown(scene, "first") == "first"
        assert {*kinds.ravel()} == {"", *(group.kind for group in scene.groups)}
        assert sorted(kinds[first]) == sorted(group.kind for group in scene.groups)
