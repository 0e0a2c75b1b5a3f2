"""CIDEr with the frequencies of a corpus, and of the best caption that looks at no image."""

import numpy as np
import pytest

from paligemma_lib import metrics
from paligemma_lib.metrics.constant_captions import best_constant
from paligemma_lib.metrics.ngrams import count

COLOURS = ("red", "blue", "green", "black", "white")
THINGS = ("dog", "ball", "car", "hat", "boat")
REFERENCES = {
    f"{colour} {thing}": [f"A {colour} {thing} is on the table.", f"There is a {colour} {thing}."]
    for colour in COLOURS
    for thing in THINGS
}
GOOD = {image: f"a {image} is on the table" for image in REFERENCES}
BLIND = dict.fromkeys(REFERENCES, "a red dog is on the table")


def test_frequencies_of_the_references_change_nothing():
    plain = metrics.score(REFERENCES, BLIND)
    frequencies = metrics.document_frequencies(REFERENCES)
    same = metrics.score(REFERENCES, BLIND, document_frequencies=frequencies)
    assert same.corpus == plain.corpus
    np.testing.assert_array_equal(same.statistics, plain.statistics)


def test_an_image_has_the_score_that_it_has_among_all():
    frequencies = metrics.document_frequencies(REFERENCES)
    whole = metrics.score(REFERENCES, GOOD)
    image = whole.image_ids[7]
    alone = metrics.score(
        {image: REFERENCES[image]}, {image: GOOD[image]}, document_frequencies=frequencies
    )
    assert alone.corpus["CIDEr"] == pytest.approx(whole.per_image["CIDEr"][7])
    assert alone.warnings == ()


def test_the_best_constant_is_one_of_the_best_of_all_references():
    texts = {text for group in REFERENCES.values() for text in group}
    tokens = [[metrics.tokenize(text) for text in group] for group in REFERENCES.values()]
    frequencies = metrics.document_frequencies(REFERENCES)
    text, value = best_constant([["a", "dog"]] * len(tokens), tokens, frequencies)
    every = [
        metrics.score(REFERENCES, dict.fromkeys(REFERENCES, each)).corpus["CIDEr"] for each in texts
    ]
    assert value >= 0.95 * max(every)
    again = metrics.score(REFERENCES, dict.fromkeys(REFERENCES, text)).corpus["CIDEr"]
    assert value == pytest.approx(again)
    assert count(text.split())


def test_captions_no_better_than_a_constant_are_warned_of():
    (told,) = [w for w in metrics.score(REFERENCES, BLIND).warnings if "of its images" in w]
    assert "as the caption of every image" in told and "checkpoint" in told
    assert not any("of its images" in w for w in metrics.score(REFERENCES, GOOD).warnings)


def test_few_images_and_permuted_captions_are_not():
    few = dict(list(REFERENCES.items())[:5])
    warnings = metrics.score(few, dict.fromkeys(few, "a")).warnings
    assert not any("of its images" in each for each in warnings)
    assert metrics.permuted(REFERENCES, BLIND, seed=0).warnings == ()
