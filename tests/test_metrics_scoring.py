"""Scores: as published, the same in any order, with intervals and comparisons that hold."""

import csv
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from metrics_cases import CAPTIONS, REFERENCES, need_pycocoevalcap

from paligemma_lib import metrics
from paligemma_lib.metrics.ngrams import bleu

WORDS = st.sampled_from(["a", "dog", "cat", "runs", "sits", "on", "grass", "the", "(", "it's", "."])
CAPTION = st.lists(WORDS, max_size=12).map(" ".join)
CORPUS = st.lists(st.tuples(st.lists(CAPTION, min_size=1, max_size=4), CAPTION), min_size=1)
GIVEN = {  # by pycocoevalcap 1.2 with Java
    "BLEU-1": 0.83333333,
    "BLEU-2": 0.70710678,
    "BLEU-3": 0.59281555,
    "BLEU-4": 0.51334505,
    "ROUGE-L": 0.63238789,
    "CIDEr": 2.15352556,
}


def as_mappings(corpus):
    references = {f"{number}.jpg": group for number, (group, _) in enumerate(corpus)}
    captions = {f"{number}.jpg": caption for number, (_, caption) in enumerate(corpus)}
    return references, captions


@pytest.fixture(scope="module")
def pycocoevalcap_scores():
    """Scores (corpus, per image) by pycocoevalcap, of lists of tokens joined by spaces."""
    need_pycocoevalcap()
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    def scores(references, captions):
        corpus, per_image = Bleu(4).compute_score(references, captions, verbose=0)
        for scorer in (Rouge(), Cider()):
            value, values = scorer.compute_score(references, captions)
            corpus, per_image = [*corpus, value], [*per_image, values]
        return dict(zip(metrics.NAMES, corpus, strict=True)), dict(
            zip(metrics.NAMES, per_image, strict=True)
        )

    return scores


@pytest.fixture(scope="module")
def flickr8k(shared):
    """The official development split: one caption of each image, and the other four."""
    folder = shared / "flickr8k"
    with open(folder / "captions_all.txt", newline="", encoding="utf-8") as file:
        captions = {}
        for image, caption in list(csv.reader(file))[1:]:
            captions.setdefault(image, []).append(caption)
    split = (folder / "uiuc_text" / "Flickr_8k.devImages.txt").read_text().split()
    return {i: captions[i][1:] for i in split}, {i: captions[i][0] for i in split}


def assert_equal_scores(scores, corpus, per_image):
    for name in metrics.NAMES:
        assert scores.corpus[name] == pytest.approx(corpus[name], abs=1e-6), name
        np.testing.assert_allclose(scores.per_image[name], per_image[name], atol=1e-6)


def test_scores_are_those_that_pycocoevalcap_gave_once():
    scores = metrics.score(REFERENCES, CAPTIONS)
    assert scores.corpus == pytest.approx(GIVEN, abs=1e-6)


@pytest.mark.slow
def test_scores_equal_pycocoevalcap_with_java_on_flickr8k(flickr8k, pycocoevalcap_scores):
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    references, captions = flickr8k
    told = PTBTokenizer().tokenize(
        {i: [{"caption": text} for text in group] for i, group in references.items()}
    )
    said = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in captions.items()})
    scores = metrics.score(references, captions)
    assert_equal_scores(scores, *pycocoevalcap_scores(told, said))


@settings(deadline=None)
@given(CORPUS)
def test_scores_equal_pycocoevalcap_on_any_captions(pycocoevalcap_scores, corpus):
    references, captions = as_mappings(corpus)
    told = {i: [" ".join(metrics.tokenize(t)) for t in group] for i, group in references.items()}
    said = {i: [" ".join(metrics.tokenize(caption))] for i, caption in captions.items()}
    assume(any(map(any, told.values())))  # pycocoevalcap fails without a word among references
    scores = metrics.score(references, captions)
    assert_equal_scores(scores, *pycocoevalcap_scores(told, said))


@settings(deadline=None)
@given(CORPUS, st.randoms())
def test_order_of_images_does_not_matter(corpus, random):
    references, captions = as_mappings(corpus)
    shuffled = list(references)
    random.shuffle(shuffled)
    first = metrics.score(references, captions)
    second = metrics.score({i: references[i] for i in shuffled}, captions)
    assert second.image_ids == tuple(shuffled)
    assert second.corpus == pytest.approx(first.corpus, abs=1e-12)


@settings(deadline=None)
@given(CORPUS)
def test_scores_are_in_bounds_and_means_are_means(corpus):
    scores = metrics.score(*as_mappings(corpus))
    for name in metrics.NAMES:
        highest = 10 if name == "CIDEr" else 1
        assert 0 <= scores.corpus[name] <= highest + 1e-9
        assert np.all((scores.per_image[name] >= 0) & (scores.per_image[name] <= highest + 1e-9))
    for name in ("ROUGE-L", "CIDEr"):
        assert np.mean(scores.per_image[name]) == pytest.approx(scores.corpus[name], abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.lists(WORDS, min_size=8, max_size=12).map(" ".join), min_size=1))
def test_captions_equal_to_a_reference_score_1(captions):
    references = {number: ["a cat", caption] for number, caption in enumerate(captions)}
    scores = metrics.score(references, dict(enumerate(captions)))
    for name in ("BLEU-1", "ROUGE-L"):
        assert scores.corpus[name] == pytest.approx(1, abs=1e-6)


def test_one_human_against_the_other_four_as_measured(flickr8k):
    references, captions = flickr8k
    scores = metrics.score(references, captions)
    assert scores.corpus["CIDEr"] == pytest.approx(0.80, abs=0.01)
    assert scores.warnings == ()
    interval = scores.intervals()["CIDEr"]
    assert 0.75 < interval.low < 0.80 < interval.high < 0.86


def test_captions_that_do_not_look_at_images_score_little(flickr8k):
    references, captions = flickr8k
    elsewhere = metrics.permuted(references, captions, seed=0)
    assert 0.02 < elsewhere.corpus["CIDEr"] < 0.05
    constant = dict.fromkeys(references, "A black dog is running in the grass.")
    scores = metrics.score(references, constant)
    assert 0.10 < scores.corpus["CIDEr"] < 0.15
    assert any("are the same" in warning for warning in scores.warnings)


def test_permuted_leaves_no_image_its_caption_and_is_drawn_by_the_seed():
    references = {number: [f"w{number} x"] for number in range(50)}
    captions = {number: f"w{number}" for number in range(50)}
    for seed in range(20):
        assert metrics.permuted(references, captions, seed).corpus["BLEU-1"] < 1e-6
    same = {number: f"w{(number + 1) % 50}" for number in range(50)}  # a permutation itself
    one, two, three = (metrics.permuted(references, same, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.statistics, two.statistics)
    assert not np.array_equal(one.statistics, three.statistics)
    with pytest.raises(ValueError, match="needs at least 2 images"):
        metrics.permuted({"a": ["x"]}, {"a": "x"}, seed=0)


def test_intervals_are_those_of_scoring_each_resample_anew():
    rng = np.random.default_rng(0)
    words = ["a", "dog", "cat", "runs", "sits", "on", "grass"]
    references = {n: [" ".join(rng.choice(words, 6)) for _ in range(2)] for n in range(30)}
    scores = metrics.score(references, {n: " ".join(rng.choice(words, 6)) for n in range(30)})
    drawn = []
    for weights in np.random.default_rng(7).multinomial(30, np.full(30, 1 / 30), size=200):
        rows = np.repeat(scores.statistics, weights, axis=0)
        drawn.append([*bleu(rows[:, :10].sum(axis=0)), *rows[:, 10:12].mean(axis=0)])
    intervals = scores.intervals(confidence=0.9, resamples=200, seed=7)
    for name, low, high in zip(
        metrics.NAMES, *np.quantile(drawn, (0.05, 0.95), axis=0), strict=True
    ):
        assert intervals[name] == pytest.approx((low, high))
    assert scores.intervals(resamples=50, seed=1) == scores.intervals(resamples=50, seed=1)
    assert scores.intervals(resamples=50, seed=1) != scores.intervals(resamples=50, seed=2)


def test_comparing_a_captioner_with_itself_shows_nothing():
    scores = metrics.score(REFERENCES, CAPTIONS)
    for difference in metrics.compare(scores, scores, resamples=100).values():
        assert difference == (0, 0, 0, 1)


def test_comparing_sees_a_difference_from_either_side():
    rng = np.random.default_rng(0)
    words = np.array("a dog cat runs sits on grass red blue man bench ball park".split())  # noqa: SIM905
    references = {n: [" ".join(rng.choice(words, 8)) for _ in range(3)] for n in range(100)}
    good = metrics.score(references, {n: references[n][0] for n in references})
    bad = metrics.score(
        dict(reversed(references.items())),
        {n: " ".join(rng.choice(words, 8)) for n in references},
    )
    forth, back = metrics.compare(good, bad, seed=3), metrics.compare(bad, good, seed=3)
    for name in metrics.NAMES:
        assert forth[name].value == pytest.approx(good.corpus[name] - bad.corpus[name])
        assert 0 < forth[name].low < forth[name].value < forth[name].high
        assert forth[name].p_value == pytest.approx(1 / 10_001)
        assert back[name].value == pytest.approx(-forth[name].value)
        assert back[name].high == pytest.approx(-forth[name].low, abs=0.02)  # other draws


def test_p_values_of_captioners_that_do_not_differ_are_spread_evenly():
    rng = np.random.default_rng(0)
    words = ["a", "dog", "cat", "runs", "sits", "on", "grass"]
    p_values = []
    for _ in range(60):
        references = {n: [" ".join(rng.choice(words, 6))] for n in range(40)}
        pair = (
            metrics.score(references, {n: " ".join(rng.choice(words, 6)) for n in range(40)})
            for _ in range(2)
        )
        p_values.append(metrics.compare(*pair, resamples=200)["CIDEr"].p_value)
    assert 0.35 < np.mean(p_values) < 0.65
    assert np.mean(np.array(p_values) < 0.1) < 0.25


def test_importing_needs_neither_tensorflow_nor_jax_nor_pycocoevalcap():
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'jax', 'flax', 'pycocoevalcap'): sys.modules[name] = None\n"
        "import paligemma_lib.metrics as metrics\n"
        "print(metrics.score({'a': ['a b c d']}, {'a': 'a b c d'}).corpus['BLEU-4'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(1)
