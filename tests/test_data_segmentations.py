"""Masks of COCO's polygons and runs: by hand, by COCO's own code, and what is wrong with them."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.data.sources.segmentations import mask_of


def test_a_pixel_is_in_a_polygon_if_its_centre_is():
    mask = mask_of([[2, 1, 5, 1, 5, 3, 2, 3]], 5, 6)
    want = np.zeros((5, 6), bool)
    want[1:3, 2:5] = True
    np.testing.assert_array_equal(mask, want)
    assert mask_of([[0, 0, 4, 0, 0, 4]], 4, 4).tolist() == [
        [True, True, True, False],
        [True, True, False, False],
        [True, False, False, False],
        [False, False, False, False],
    ]


def test_polygons_are_one_thing_and_may_lead_out_of_the_image():
    mask = mask_of([[-5, -5, 2, -5, 2, 2, -5, 2], [3, 3, 90.5, 3, 90.5, 90.5, 3, 90.5]], 4, 4)
    assert mask.sum() == 5 and mask[:2, :2].all() and mask[3, 3]
    assert not mask_of([[10, 10, 20, 10, 20, 20]], 4, 4).any()
    assert not mask_of([[1, 1, 1, 1, 1, 1]], 4, 4).any()


def test_runs_go_down_the_columns():
    want = [[False, True, False], [True, False, False]]
    assert mask_of({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3).tolist() == want
    assert mask_of({"size": [2, 3], "counts": "123"}, 2, 3).tolist() == want
    assert mask_of({"size": [1, 2], "counts": [0, 2]}, 1, 2).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([0.02, 0.5, 0.98]), st.integers(0))
def test_compressed_runs_are_read_as_coco_writes_them(height, width, share, seed):
    coco = pytest_coco()
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = coco.encode(np.asfortranarray(mask, np.uint8))
    given = {"size": [height, width], "counts": runs["counts"].decode()}
    np.testing.assert_array_equal(mask_of(given, height, width), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools, by NumPy 2
def test_polygons_are_nearly_those_of_coco():
    coco, rng = pytest_coco(), np.random.default_rng(0)
    for _ in range(100):
        angle, radius = np.sort(rng.uniform(0, 2 * np.pi, 9)), rng.uniform(10, 40, 9)
        points = np.stack([60 + radius * np.cos(angle), 50 + radius * np.sin(angle)], axis=1)
        polygon = points.ravel().tolist()
        theirs = coco.decode(coco.frPyObjects([polygon], 100, 120))[..., 0].astype(bool)
        ours = mask_of([polygon], 100, 120)
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.9
        assert abs(int(ours.sum()) - int(theirs.sum())) <= 0.03 * theirs.sum() + 5


def pytest_coco():
    if importlib.util.find_spec("pycocotools") is None:
        pytest.skip("needs pycocotools")
    from pycocotools import mask

    return mask


SIZE = {"size": [4, 5]}


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        (None, "segmentation is None, expected polygons or RLE"),
        ([], r"segmentation is \[\], expected polygons or RLE"),
        ("0", "segmentation is 0, expected polygons or RLE"),
        ([1, 2, 3, 4, 5, 6], "a polygon is 1, expected x, y of three or more points"),
        ([[1, 2, 3, 4]], "expected x, y of three or more points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "expected x, y of three or more points"),
        ([[1, 2, 3, 4, 5, "6"]], "expected numbers up to 1,000,000"),
        ([[1, 2, 3, 4, 5, float("nan")]], "expected numbers up to"),
        ([[1, 2, 3, 4, 5, True]], "expected numbers up to"),
        ([[1, 2, 3, 4, 5, 1e300]], "expected numbers up to"),
        ([[1, 2, 3, 4, 5, 10**400]], "expected numbers up to"),
        ([[0.0] * 20_002], "its polygons have more than 20,000 numbers"),
        ([[0.0] * 6] * 4000, "its polygons have more than 20,000 numbers"),
        ({}, r"the size of its RLE is None, the image has \[4, 5\]"),
        ({"size": [5, 4], "counts": [20]}, r"the size of its RLE is \[5, 4\]"),
        ({**SIZE, "counts": None}, "the counts of its RLE are None, expected whole numbers"),
        ({**SIZE, "counts": [10, "10"]}, "expected whole numbers from 0"),
        ({**SIZE, "counts": [True, 19]}, "expected whole numbers from 0"),
        ({**SIZE, "counts": [21, -1]}, "expected whole numbers from 0"),
        ({**SIZE, "counts": [10, 9]}, "the counts of its RLE sum to 19, expected 4 x 5"),
        ({**SIZE, "counts": [10**400]}, "the counts of its RLE sum to"),
        ({**SIZE, "counts": []}, "the counts of its RLE sum to 0, expected 4 x 5"),
        ({**SIZE, "counts": "\x00"}, "which is not COCO's form"),
        ({**SIZE, "counts": "é"}, "which is not COCO's form"),
        ({**SIZE, "counts": "o" * 10}, "which is not COCO's form"),
        ({**SIZE, "counts": "o"}, "end within a number"),
        ({**SIZE, "counts": "oo0"}, "sum to more than 20, or are below 0"),
        ({**SIZE, "counts": "O"}, "sum to more than 20, or are below 0"),
    ],
)
def test_what_is_no_mask_says_why(segmentation, told):
    with pytest.raises(ValueError, match=told):
        mask_of(segmentation, 4, 5)
