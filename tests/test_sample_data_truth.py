"""What is true in a caption of a drawn scene: people's captions all, others as the case may be."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.sample_data import compose
from paligemma_lib.sample_data.scenes import Group, Scene, captions
from paligemma_lib.sample_data.truth import truth

LEFT, RIGHT = ((0.1, 0.6, 0.2, 0.8), (0.22, 0.6, 0.32, 0.8)), ((0.6, 0.5, 0.9, 0.9),)
BALLS = Group("ball", "red", "small", LEFT)  # two
HOUSE = Group("house", "blue", "large", RIGHT)
KITE = Group("kite", "green", "small", ((0.7, 0.1, 0.8, 0.3),))  # above the house
SCENE = Scene(320, 240, False, "meadow", 0.5, "sun", (0.4, 0.1, 0.5, 0.2), (BALLS, HOUSE, KITE))
CHILD = Group("child", "white", "large", RIGHT)
GREY = Scene(320, 240, True, "room", 0.6, "", (0, 0, 0, 0), (CHILD,))


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_captions_by_people_are_true(seed, index):
    scene = compose(seed, index)
    found = [truth(scene, caption) for caption in captions(scene, random.Random(index))]
    assert all(each.is_true for each in found)
    assert any(each.is_whole for each in found)  # the one that lists all


@pytest.mark.parametrize(
    ("caption", "false"),
    [
        ("Two red balls and a blue house .", []),
        ("three red balls", ["three"]),
        ("a red ball", ["a"]),
        ("two green balls", ["green"]),
        ("two large red balls", ["large"]),
        ("two little red balls", []),
        ("red balls", []),
        ("red ball", ["ball"]),
        ("two ball", ["two"]),
        ("a houses", ["a"]),
        ("two red balls swim on the grass", ["swim"]),
        ("a green kite floats in the sky", ["floats"]),
        ("there are two red balls in a meadow", []),
        ("two red balls to the left of a blue house on the left", []),  # the balls are
        ("a blue house under a green kite on the left", ["on the left"]),
        ("two red balls to the left of a blue house under a green kite", []),
        ("a dog", ["dog"]),
        ("a red balloon flies in the sky", ["balloon", "flies", "in the sky"]),
        ("a blue house and a blue house", ["house"]),
        ("two red balls on the left , a blue house on the right", []),
        ("a blue house in the middle", ["in the middle"]),
        ("a green kite at the top right", []),
        ("a green kite on the right", ["on the right"]),
        ("a blue house at the top right", ["at the top right"]),
        ("two red balls lie on the grass to the left of a blue house", []),
        ("two red balls lie in the snow", ["in the snow"]),
        ("a blue house stands on the grass to the left of two red balls", ["to the left of"]),
        ("a green kite flies in the sky above a blue house", []),
        ("a blue house under a green kite", []),
        ("two red balls next to a dog", ["dog", "next to"]),
        ("a blue house under the sun", []),
        ("under the clouds , a blue house", ["under the clouds"]),
        ("there is a blue house in a field", []),
        ("there is a blue house at sea", ["at sea"]),
    ],
)
def test_what_is_false_is_named(caption, false):
    found = truth(SCENE, caption)
    assert [each.text for each in found.said if not each.true] == false
    assert found.unread == ()
    assert found.is_true == (not false)


@pytest.mark.parametrize(
    ("caption", "unread"),
    [
        ("", ()),
        ("there is", ()),
        ("a blue house : kites", (":",)),
        ("a happy blue house", ("a", "happy")),
        ("two red balls next to", ("next to",)),
        ("in purple", ("in", "purple")),
    ],
)
def test_what_cannot_be_read_is_not_true(caption, unread):
    found = truth(SCENE, caption)
    assert found.unread == unread
    assert not found.is_true


def test_what_is_not_named_is_missing():
    found = truth(SCENE, "two red balls and a blue house")
    assert found.missing == ("kite",)
    assert found.is_true and not found.is_whole
    assert truth(SCENE, "two red balls , a blue house and a green kite").is_whole


def test_children_wear_their_colour_and_grey_images_have_none():
    assert truth(GREY, "a tall child stands on the floor").is_true
    assert [each.text for each in truth(GREY, "a kid in white").said if not each.true] == ["white"]
    dressed = Scene(320, 240, False, "room", 0.6, "", (0, 0, 0, 0), (CHILD,))
    assert truth(dressed, "a kid in white in a room").is_whole
    assert not truth(dressed, "a kid in red").is_true


def test_a_thing_is_right_if_kind_number_and_colour_are():
    texts = ("two red balls", "three red balls and a house", "a dog and a blue house", "nothing")
    found = [truth(SCENE, text).things() for text in texts]
    assert found == [[True], [False, True], [False, True], []]
