"""Tests of scores of masks, by a codec that can be read."""

import numpy as np
import pytest
from mask_cases import square_arrays

from paligemma_lib.metrics.masks import score_masks
from paligemma_lib.metrics.tasks import scorer_of
from paligemma_lib.regions import Box, MaskCodec, Region, write_regions

CODEC = MaskCodec(square_arrays())
FULL, UPPER, LOWER = (1,) * 16, (1,) * 8 + (0,) * 8, (0,) * 8 + (1,) * 8
WHOLE, LEFT = Box(0, 0, 1, 1), Box(0, 0, 1, 0.5)


def text(*regions: Region) -> str:
    return write_regions(regions)


@pytest.mark.parametrize(
    ("said", "overlap", "f1"),
    [
        (text(Region("dog", WHOLE, FULL)), 1, 1),
        (text(Region("Dog", WHOLE, FULL)), 1, 1),
        (text(Region("dog", WHOLE, UPPER)), 0.5, 1),
        (text(Region("dog", LEFT, UPPER)), 0.25, 0),
        (text(Region("cat", WHOLE, FULL)), 0, 0),
        (text(Region("dog", WHOLE)), 0, 0),
        (text(Region("dog", LEFT, FULL), Region("dog", WHOLE, FULL)), 1, 2 / 3),
        ("nothing", 0, 0),
    ],
)
def test_iou_is_of_pixels(said, overlap, f1):
    scores = score_masks({"1.jpg": [text(Region("dog", WHOLE, FULL))]}, {"1.jpg": said}, CODEC)
    assert scores.corpus["Mean mask IoU"] == pytest.approx(overlap, abs=0.01)
    assert scores.corpus["Mask F1"] == pytest.approx(f1, abs=0.01)


def test_masks_that_share_a_box_are_told_apart():
    true = [text(Region("dog", WHOLE, UPPER), Region("dog", WHOLE, LOWER))]
    said = text(Region("dog", WHOLE, LOWER), Region("dog", WHOLE, UPPER))
    assert score_masks({"1": true}, {"1": said}, CODEC).corpus["Mask F1"] == 1


def test_texts_without_masks_are_told():
    references = {"1": [text(Region("dog", WHOLE, FULL))], "2": ["none"]}
    (warning,) = score_masks(references, {"1": "a dog", "2": ""}, CODEC).warnings
    assert warning.startswith("1 of 1 texts have no mask")
    with pytest.raises(ValueError, match="none of 1 references has a mask"):
        score_masks({"1": [text(Region("dog", WHOLE))]}, {"1": ""}, CODEC)


def test_the_task_needs_the_codec():
    with pytest.raises(ValueError, match="vae-oid.npz"):
        scorer_of("segment")
    references = {"1": [text(Region("dog", WHOLE, FULL))]}
    scores = scorer_of("segment", CODEC)(references, {"1": references["1"][0]})
    np.testing.assert_allclose(scores.per_image["Mean mask IoU"], [1])
