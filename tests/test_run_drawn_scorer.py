"""Captions of drawn scenes are scored for truth, beside the scores that all captions have."""

import dataclasses
import random

import pytest

from paligemma_lib.metrics import compare
from paligemma_lib.run import DataConfig, ModelConfig, RunConfig, Setup
from paligemma_lib.run.drawn_scorer import (
    TRUE,
    remark_on,
    scene_of,
    score_truth,
    scorer_of,
    tell_truth,
)
from paligemma_lib.sample_data import compose
from paligemma_lib.sample_data.pretraining_scenes import held_out
from paligemma_lib.sample_data.scenes import Group, Scene, captions
from paligemma_lib.sample_data.truth import truth

SEED, COUNT = 3, 20
BALLS = Group("ball", "red", "small", ((0.1, 0.6, 0.2, 0.8), (0.22, 0.6, 0.32, 0.8)))
HOUSE = Group("house", "blue", "large", ((0.6, 0.5, 0.9, 0.9),))
CONFIG = RunConfig(seed=SEED, data=DataConfig(kind="sample", name=str(COUNT)))


@pytest.fixture
def references():
    return {
        f"scene_{k:05d}.jpg": captions(compose(SEED, k), random.Random(k)) for k in range(COUNT)
    }


def test_true_captions_are_all_true(references):
    first = {image: texts[0] for image, texts in references.items()}
    scores = scorer_of(Setup(CONFIG))(references, first)
    assert scores.corpus["CIDEr"] > 1
    assert scores.warnings == ()  # though all captions equal a reference
    assert scores.corpus[TRUE] == scores.corpus["Right things"] == 1
    assert scores.per_image[TRUE].tolist() == [1] * COUNT
    assert scores.intervals()[TRUE] == (1, 1)


def test_captions_of_other_scenes_are_not(references):
    images = list(references)
    others = [*images[1:], images[0]]
    moved = {image: references[other][0] for image, other in zip(images, others, strict=True)}
    scores = scorer_of(Setup(CONFIG), quiet=True)(references, moved)
    assert scores.corpus[TRUE] <= 0.05
    own = {image: texts[0] for image, texts in references.items()}
    difference = compare(scorer_of(Setup(CONFIG))(references, own), scores)[TRUE]
    assert difference.value > 0.9 and difference.p_value < 0.01


def test_shares_are_of_all_captions_and_of_all_things():
    scene = Scene(320, 240, False, "meadow", 0.5, "", (0, 0, 0, 0), (BALLS, HOUSE))
    texts = ("two red balls", "three red balls and a house", "a dog and a blue house", "nothing")
    scores = score_truth(list(texts), [truth(scene, text) for text in texts])
    # True: the first; it names no house. Things: balls, no, house, no, house. Kinds: all but dog.
    assert scores.corpus == {
        "True captions": 1 / 4, "True and whole": 0, "Right things": 3 / 5, "Right kinds": 4 / 5,
    }  # fmt: skip
    nothing = score_truth(["a"], [truth(scene, "nothing")])
    assert set(nothing.corpus.values()) == {0}


def test_the_run_says_how_many_are_true(references):
    told = {image: texts[0] for image, texts in references.items()} | {"scene_00000.jpg": "a dot"}
    scores = scorer_of(Setup(CONFIG))(references, told)
    said = f"{COUNT - 1} of {COUNT} captions are true in every word"
    assert tell_truth(scores, CONFIG) == [f"{said}."]
    assert tell_truth(scorer_of(Setup(RunConfig()))(references, told), CONFIG) == []
    new = [name for name in references if held_out(scene_of(SEED, name))]
    assert "scene_00000.jpg" not in new and 0 < len(new) < COUNT
    nano = dataclasses.replace(CONFIG, model=ModelConfig(checkpoint="nano"))
    assert tell_truth(scores, nano) == [
        f"{said}, {len(new)} of {len(new)} where colours, kinds and numbers come together as the "
        "pretraining of nano never showed them."
    ]


def test_what_is_not_true_of_a_caption_is_named(references):
    name, texts = next(iter(references.items()))
    assert remark_on(name, texts[0], SEED) == ""
    (kind, *_) = {"dog", "duck"} - {group.kind for group in compose(SEED, 0).groups}
    told = remark_on(name, f"{texts[0]} and a {kind} sings", SEED)
    assert told == f"Not true: {kind}, sings"
    assert remark_on(name, "there is", SEED) == "It names nothing."
    assert remark_on("a.jpg", f"a {kind}", SEED) == ""


def test_scenes_of_another_seed_are_told_and_not_scored(references):
    first = {image: texts[0] for image, texts in references.items()}
    other = Setup(RunConfig(seed=SEED + 1, data=DataConfig(kind="sample", name=str(COUNT))))
    scores = scorer_of(other)(references, first)
    assert TRUE not in scores.corpus
    assert "is not of the scenes of seed 4" in scores.warnings[-1]


@pytest.mark.parametrize(
    "setup",
    [
        Setup(RunConfig(data=DataConfig(kind="sample", name="20", wording="labels"))),
        Setup(RunConfig(data=DataConfig(train="mine"))),
        Setup(CONFIG, given={}),
    ],
)
def test_other_images_have_no_such_score(setup, references):
    first = {image: texts[0] for image, texts in references.items()}
    assert TRUE not in scorer_of(setup)(references, first).corpus
