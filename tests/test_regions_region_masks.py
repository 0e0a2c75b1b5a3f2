"""Tests of masks in their images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_cases import square_arrays

from paligemma_lib.regions import Box, MaskCodec, Region, region_masks, region_of

CODEC = MaskCodec(square_arrays())
FULL, EMPTY, UPPER = (1,) * 16, (0,) * 16, (1,) * 8 + (0,) * 8


def test_a_mask_fills_its_box():
    regions = [
        Region("dog", Box(0.25, 0.5, 0.75, 1.0), UPPER),
        Region("cat", Box(0, 0, 1, 1)),
        Region("sky", Box(0, 0, 1, 1), EMPTY),
        Region("speck", Box(0.5, 0.5, 0.501, 0.501), FULL),
    ]
    dog, cat, sky, speck = region_masks(regions, CODEC, height=80, width=40)
    want = np.zeros((80, 40), bool)
    want[20:40, 20:] = True
    np.testing.assert_array_equal(dog, want)
    assert cat is None
    assert not sky.any() and not speck.any() and speck.shape == (80, 40)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_rectangle_is_written_and_read_as_it_was(data):
    top, left = (data.draw(st.integers(0, 60)) for _ in range(2))
    bottom, right = (data.draw(st.integers(low + 1, 61)) for low in (top, left))
    mask = np.zeros((61, 61), bool)
    mask[top:bottom, left:right] = True
    region = region_of(mask, CODEC, "dog")
    assert region.mask == FULL
    (found,) = region_masks([region], CODEC, height=61, width=61)
    assert (found ^ mask).sum() <= bottom - top + right - left  # an edge, as int() cuts 0.9999


@pytest.mark.parametrize("mask", [np.zeros((4, 4), bool), np.ones((4, 4)), np.ones(4, bool)])
def test_no_mask_is_refused(mask):
    with pytest.raises(ValueError, match="'dog': its mask is .* expected bool"):
        region_of(mask, CODEC, "dog")
