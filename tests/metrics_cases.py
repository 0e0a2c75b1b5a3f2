"""Captions of three images and what people said of them."""

import importlib.util

import pytest

REFERENCES = {
    "a.jpg": ["A black dog runs on the grass.", "The dog is running across green grass ."],
    "b.jpg": ["Two men sit on a bench (in a park)", "Men on a bench.", "two people rest"],
    "c.jpg": ["A girl can't reach the ball"],
}
CAPTIONS = {
    "a.jpg": "a black dog runs on the green grass",
    "b.jpg": "Two men in a park.",
    "c.jpg": "a boy kicks a ball",
}


def need_pycocoevalcap() -> None:
    if importlib.util.find_spec("pycocoevalcap") is None:
        pytest.skip("needs pycocoevalcap")
