"""VQA accuracy: as the evaluation server computes it, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.metrics import compare, permuted, score_answers
from paligemma_lib.metrics.vqa import normalized, vqa_accuracy


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ("The Dog.", "dog"),
        ("two", "2"),
        ("None", "0"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("don't know", "dont know"),
        ("red/blue", "red blue"),
        ("T-shirt!", "t shirt"),
        (" a  cat\nand an owl ", "cat and owl"),
    ],
)
def test_answers_are_compared_in_one_form(answer, same):
    assert normalized(answer) == same
    assert normalized(same) == same


@pytest.mark.parametrize(
    ("agreeing", "accuracy"),
    # Without one of those who agree, n - 1 of 9 do; without another one, n do.
    [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)],
)
def test_three_of_ten_people_make_an_answer_right(agreeing, accuracy):
    references = ["yes"] * agreeing + ["no"] * (10 - agreeing)
    assert vqa_accuracy("yes", references) == pytest.approx(accuracy)


def test_a_single_reference_must_be_equal():
    assert vqa_accuracy("red", ["red"]) == 1
    assert vqa_accuracy("red", ["blue"]) == 0
    assert vqa_accuracy("red", ["red", "red"]) == 1


@given(st.lists(st.sampled_from(["a1", "b", "c"]), min_size=1, max_size=10), st.data())
def test_accuracy_is_in_bounds_and_grows_with_agreement(references, data):
    answer = data.draw(st.sampled_from(references))
    found = vqa_accuracy(answer, references)
    assert 0 <= found <= 1
    assert vqa_accuracy("never said", references) == 0
    more = [answer if k == 0 else each for k, each in enumerate(references)]
    assert vqa_accuracy(answer, more) >= found - 1e-12


def test_scores_are_means_with_intervals_and_comparisons():
    references = {str(k): ["red"] * 10 if k % 2 else ["blue"] * 10 for k in range(40)}
    good = score_answers(references, {i: told[0] for i, told in references.items()})
    half = score_answers(references, dict.fromkeys(references, "Red."))
    assert good.corpus == {"VQA accuracy": 1, "Exact match": 1}
    assert half.corpus == {"VQA accuracy": 0.5, "Exact match": 0.5}
    low, high = half.intervals()["VQA accuracy"]
    assert 0.3 < low < 0.5 < high < 0.7
    assert compare(good, half, resamples=500)["Exact match"].value == 0.5
    np.testing.assert_array_equal(half.per_image["Exact match"], [0, 1] * 20)


def test_a_constant_answer_is_as_good_for_other_images():
    references = {str(k): ["yes"] for k in range(9)} | {"9": ["no"]}
    elsewhere = permuted(references, dict.fromkeys(references, "yes"), 0, score_answers)
    assert elsewhere.corpus["VQA accuracy"] == pytest.approx(0.9)


def test_empty_answers_are_told():
    (told,) = score_answers({"a": ["x"], "b": ["y"]}, {"a": "", "b": "y"}).warnings
    assert "1 of 2 answers are empty" in told and "'a'" in told
    with pytest.raises(ValueError, match="no references"):
        score_answers({}, {})
