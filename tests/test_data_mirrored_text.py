"""Tests of texts for flipped images."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.data.mirrored_text import mirrored


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a dog left of a cat", "a dog right of a cat"),
        ("Left, RIGHT, right.", "Right, LEFT, left."),
        ("leftmost rightwards right-hand", "rightmost leftwards left-hand"),
        ("a bright copyright leftover", "a bright copyright leftover"),
        ("", ""),
    ],
)
def test_sides_are_exchanged_as_words(text, want):
    assert mirrored(text) == want


@given(st.lists(st.sampled_from(["left", "Right", "LEFT", "leftmost", "dog", ", ", "-", "é "])))
def test_twice_is_as_before(words):
    text = " ".join(words)
    assert mirrored(mirrored(text)) == text
