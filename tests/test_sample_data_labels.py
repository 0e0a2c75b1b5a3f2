"""Tests of the sample data's other way of speaking: labels, of which the small model knows all."""

from __future__ import annotations

import re

from sample_data_cases import COUNT, labels_of, sentences_of

from paligemma_lib.sample_data import objects, scenes


def test_labels_are_five_different_ones_that_no_sentence_equals() -> None:
    for index in range(COUNT):
        _, told = labels_of(index)
        assert len(set(told)) == 5
        assert not set(told) & {caption.lower() for caption in sentences_of(index)[1]}
        for label in told:
            assert re.fullmatch(r"[a-z]+( [a-z]+| [,.:])*", label)


def test_labels_have_every_word_of_the_sentences() -> None:
    """Whose embeddings would else be as they were at random, and frozen so."""
    spoken = {word for i in range(2000) for label in labels_of(i)[1] for word in label.split()}
    sentences = {word for i in range(2000) for told in sentences_of(i)[1] for word in told.split()}
    assert {word.lower() for word in sentences} <= spoken


def test_labels_name_what_is_there_and_nothing_else() -> None:
    nouns = {word: kind for kind, forms in scenes.NOUNS.items() for pair in forms for word in pair}
    for index in range(COUNT):
        scene, told = labels_of(index)
        kinds = {group.kind for group in scene.groups}
        colours = {group.colour for group in scene.groups} if not scene.greyscale else set()
        for label in told:
            words = set(label.split())
            assert {nouns[word] for word in words & set(nouns)} <= kinds
            assert words & set(objects.PALETTE) <= colours
