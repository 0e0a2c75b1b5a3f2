"""Warnings: captions that score and yet look like a mistake."""

import pytest

from paligemma_lib import metrics

LONG = "a dog and a cat and a man in the park with many trees on a sunny day near a lake in summer"


@pytest.mark.parametrize(
    ("faulty", "share", "message"),
    [
        ("", 0.05, "are empty"),
        ("ein Hund auf der StraÃŸe", 0.05, "broken characters"),
        ("a dog \ufffd", 0.05, "broken characters"),
        ("a dog<eos>", 0.05, "tokenizer pieces"),
        ("it&#39;s a dog", 0.05, "HTML"),
        ("number {} is here", 0.2, "equal a reference"),
        ("a cat", 0.5, "are the same, 'a cat'"),
        (LONG, 0.2, "more than twice as long"),
        ("a red a red a red", 0.2, "repeat the same words"),
        ("thing {} lies on the", 0.2, "middle of a phrase"),
    ],
)
def test_suspicious_captions_are_warned_of(faulty, share, message):
    references = {n: [f"Number {n} is here.", f"here lies the thing {n}"] for n in range(40)}
    captions = {n: f"thing {n} is lying here" for n in references}
    assert metrics.score(references, captions).warnings == ()
    for n in range(int(40 * share)):
        captions[n] = faulty.format(n)
    warnings = metrics.score(references, captions).warnings
    assert len([warning for warning in warnings if message in warning]) == 1
    assert all(f"{int(40 * share)} of 40 captions" in warning for warning in warnings)
    assert all("First: 0, 1" in warning for warning in warnings)


def test_a_single_image_is_warned_of():
    scores = metrics.score({"a": ["a dog runs here"]}, {"a": "a dog runs here"})
    assert scores.corpus["CIDEr"] == 0
    assert len(scores.warnings) == 1 and "CIDEr of a single image is 0" in scores.warnings[0]
