"""Scenes to pretrain on: a source that draws, and holds some combinations back."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from paligemma_lib.data.sources import Source
from paligemma_lib.data.sources.protocol import HasTexts
from paligemma_lib.sample_data import compose, labels, scenes
from paligemma_lib.sample_data.objects import PALETTE
from paligemma_lib.sample_data.pretraining_scenes import (
    AT_MOST_THREE,
    COLOURS_APART,
    PretrainingScenes,
    held_out,
)
from paligemma_lib.sample_data.scenes import NOUNS, Group, Scene


def test_a_record_depends_on_its_number_alone():
    source = PretrainingScenes("100:200")
    assert isinstance(source, Source) and isinstance(source, HasTexts) and len(source) == 100
    one, two = source.read([7, 3])
    assert [two, one] == source.read([3, 7])
    assert PretrainingScenes("107:108").read([0]) == [one]
    assert one.image != two.image and one.image_id == "scene 107"
    assert len(one.captions) == 1
    assert np.asarray(Image.open(io.BytesIO(one.image))).size > 10_000
    texts = source.texts([7])[0]
    assert (texts.image, texts.captions) == (b"", one.captions)
    assert source.where(7) == "scene 107"


def test_other_numbers_have_another_fingerprint():
    found = {PretrainingScenes(each).fingerprint() for each in ("0:10", "0:11", "1:10", "10:11")}
    assert len(found) == 4 and all(each.isdecimal() for each in found)


@pytest.mark.parametrize("numbers", ["", "train", "5", "5:5", "6:5", "-1:5", "0:12345678901"])
def test_other_texts_are_refused(numbers):
    with pytest.raises(ValueError, match="expected FIRST:END"):
        PretrainingScenes(numbers)


def test_a_number_out_of_range_is_refused():
    with pytest.raises(ValueError, match="no record 10"):
        PretrainingScenes("0:10").read([10])


def test_no_label_tells_of_what_is_held_out():
    """Labels are read here word by word, with nothing of the code that holds back."""
    nouns = {
        word: (kind, pair.index(word)) for kind, n in NOUNS.items() for pair in n for word in pair
    }
    seen = set()
    for record in PretrainingScenes("0:3000").texts(range(3000)):
        for thing in record.captions[0].replace(".", ",").replace(" and ", ",").split(","):
            words = thing.split(" : ")[-1].split()
            for kind, _ in [nouns[word] for word in words if word in nouns]:
                seen |= {(kind, word) for word in words if word in PALETTE or word == "four"}
    assert not seen & set(COLOURS_APART.items())
    assert not seen & {(kind, "four") for kind in AT_MOST_THREE}
    assert {("car", "red"), ("ball", "four"), ("boat", "white"), ("tree", "four")} <= seen


def test_what_is_held_out_is_told():
    def scene(*groups, greyscale=False):
        return Scene(320, 240, greyscale, "meadow", 0.5, "", (0, 0, 0, 0), groups)

    box = (0.1, 0.6, 0.2, 0.8)
    red, green = (Group("ball", colour, "small", (box,)) for colour in ("red", "green"))
    dogs = [Group("dog", "black", "small", (box,) * count) for count in (3, 4)]
    assert held_out(scene(red, green)) and not held_out(scene(red))
    assert not held_out(scene(green, greyscale=True))  # whose colour nobody sees
    assert held_out(scene(dogs[1])) and not held_out(scene(dogs[0]))


def test_the_default_run_has_such_combinations():
    share = np.mean([held_out(compose(0, index)) for index in range(1500)])
    assert 0.1 < share < 0.3


def test_labels_are_never_in_the_order_of_sentences():
    for index in range(300):
        for label in labels.captions(compose(1, index), random.Random(index)):
            words = label.split()
            for number, colour, noun in zip(words, words[1:], words[2:], strict=False):
                in_order = number in ("a", "an", "two", "three", "four") and colour in PALETTE
                assert not (in_order and any(noun in pair for n in NOUNS.values() for pair in n))


def test_labels_have_every_word_of_the_sentences():
    """Whose embeddings would else be as they were at random, and frozen so."""
    spoken, sentences = (
        {
            word.lower()
            for index in range(2000)
            for text in captions(compose(0, index), random.Random(index))
            for word in text.split()
        }
        for captions in (labels.captions, scenes.captions)
    )
    assert sentences <= spoken


def test_labels_are_five_different_ones_of_bounded_length():
    for index in range(300):
        told = labels.captions(compose(2, index), random.Random(index))
        assert len(set(told)) == 5
        assert max(len(label.split()) for label in told) <= labels.MOST_WORDS
