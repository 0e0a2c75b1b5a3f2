"""Scores of boxes: IoU and F1 worked out by hand, AP by pycocotools."""

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.metrics import average_precision, compare, score, score_boxes
from paligemma_lib.metrics.boxes import matched
from paligemma_lib.regions import Box, Region, write_regions


def text(*regions: tuple[str, tuple[float, ...]]) -> str:
    return write_regions(Region(label, Box(*box)) for label, box in regions)


LEFT, RIGHT, WHOLE = (0, 0, 1, 0.5), (0, 0.5, 1, 1), (0, 0, 1, 1)
REFERENCES = {"a": [text(("dog", LEFT), ("cat", RIGHT))], "b": [text(("dog", WHOLE))]}


def need_pycocotools():
    if importlib.util.find_spec("pycocotools") is None:
        pytest.skip("needs pycocotools")


def test_the_truth_scores_1():
    scores = score_boxes(REFERENCES, {i: told[0] for i, told in REFERENCES.items()})
    assert scores.corpus == pytest.approx({"Mean IoU": 1, "F1": 1})
    assert scores.warnings == ()


def test_what_is_missed_counts_as_0_and_what_is_too_much_lowers_f1():
    said = {"a": text(("Dog", LEFT)), "b": text(("dog", LEFT), ("dog", WHOLE), ("owl", WHOLE))}
    scores = score_boxes(REFERENCES, said)
    assert scores.corpus["Mean IoU"] == pytest.approx(2 / 3)  # of three true boxes
    assert scores.corpus["F1"] == pytest.approx(2 * 2 / (4 + 3))
    assert scores.per_image["Mean IoU"] == pytest.approx([0.5, 1])


def test_a_box_of_another_label_is_no_match():
    assert score_boxes({"a": [text(("dog", LEFT))]}, {"a": text(("cat", LEFT))}).corpus == {
        "Mean IoU": 0,
        "F1": 0,
    }


def test_boxes_that_overlap_less_than_half_have_iou_but_are_not_found():
    scores = score_boxes({"a": [text(("dog", (0, 0, 1, 0.4)))]}, {"a": text(("dog", WHOLE))})
    assert scores.corpus["Mean IoU"] == pytest.approx(0.4, abs=1e-3)
    assert scores.corpus["F1"] == 0


def test_each_box_is_matched_once_and_the_closest_first():
    said = [Region("dog", Box(*WHOLE)), Region("dog", Box(0, 0, 1, 0.9))]
    assert matched(said, [Region("dog", Box(*WHOLE))]) == pytest.approx([1])
    true = [Region("dog", Box(0, 0, 1, 0.9)), Region("dog", Box(*WHOLE))]
    assert sorted(matched(said, true)) == pytest.approx([1, 1])


@given(st.permutations(range(4)))
def test_the_order_of_boxes_does_not_matter(order):
    boxes = [("dog", LEFT), ("dog", WHOLE), ("dog", (0, 0.2, 1, 0.9)), ("cat", RIGHT)]
    shuffled = {"a": text(*(boxes[k] for k in order))}
    told = {"a": [text(*boxes[:2]), text(boxes[3])]}  # several texts are one truth
    plain = score_boxes(told, {"a": text(*boxes)})
    assert score_boxes(told, shuffled).corpus == pytest.approx(plain.corpus)


def test_texts_without_boxes_are_told_and_some_reference_needs_one():
    (warning,) = score_boxes(REFERENCES, {"a": "a dog", "b": text(("dog", WHOLE))}).warnings
    assert "1 of 2 texts have no box" in warning and "'a'" in warning
    for scorer in (score_boxes, average_precision):
        with pytest.raises(ValueError, match="none of 2 references has a box, .*'a dog' of 'a'"):
            scorer({"a": ["a dog"], "b": [""]}, {"a": text(("dog", LEFT)), "b": ""})


@pytest.mark.filterwarnings("error")
def test_images_may_have_no_true_box():
    references = {**REFERENCES, "none": [""], "two": ["no dog", ""]}
    truth = {image: told[0] for image, told in references.items()}
    right = score_boxes(references, truth)
    assert right.corpus == pytest.approx({"Mean IoU": 1, "F1": 1}) and right.warnings == ()
    too_much = score_boxes(references, {**truth, "none": text(("dog", LEFT), ("dog", RIGHT))})
    assert too_much.corpus == pytest.approx({"Mean IoU": 1, "F1": 2 * 3 / (3 + 5)})
    for name in ("Mean IoU", "F1"):
        assert too_much.per_image[name].tolist() == [1, 1, 0, 1]
    # A resample may be of images without boxes alone.
    assert all(0 <= x <= 1 for pair in too_much.intervals().values() for x in pair)
    assert compare(right, too_much)["F1"].value == pytest.approx(0.25)
    need_pycocotools()
    assert average_precision(references, truth)[:2] == pytest.approx((1, 1))


def test_scores_of_two_tasks_are_not_compared():
    captions = score({"a": ["x"]}, {"a": "x"})
    boxes = score_boxes({"a": [text(("dog", LEFT))]}, {"a": ""})
    with pytest.raises(ValueError, match="score both by the same task"):
        compare(captions, boxes)


def test_average_precision_is_coco_s():
    need_pycocotools()
    truth = {i: told[0] for i, told in REFERENCES.items()}
    assert average_precision(REFERENCES, truth)[:2] == pytest.approx((1, 1))
    assert average_precision(REFERENCES, dict.fromkeys(REFERENCES, "nothing"))[:2] == (0, 0)
    # The cat is missed: AP 0 of its class. Both dogs are found, the first with IoU 0.898: AP is
    # 1 at the limits 0.5 to 0.85. At 0.9 and 0.95 the first is wrong and the second right, which
    # gives precision 1/2 up to recall 1/2, the first 51 of 101 points.
    said = {"a": text(("dog", (0, 0, 1, 0.45))), "b": text(("dog", WHOLE))}
    found = average_precision(REFERENCES, said)
    assert found.ap50 == pytest.approx(0.5, abs=1e-6)
    assert found.ap == pytest.approx((0.8 + 0.2 * 0.5 * 51 / 101) / 2, abs=1e-6)


def test_without_pycocotools_the_reason_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.coco", None)
    found = average_precision(REFERENCES, dict.fromkeys(REFERENCES, ""))
    assert found.ap is None and "needs pycocotools" in found.reason
