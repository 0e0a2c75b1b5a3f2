"""Tests of the codec of masks, against plain loops and by a codec that can be read."""

import numpy as np
import pytest
from mask_cases import arrays, square_arrays

from paligemma_lib.regions import MaskCodec
from paligemma_lib.regions.mask_codec import CODES, SIDE, _correlate


def test_a_correlation_is_the_sum_that_it_stands_for():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 6, 6, 3)), rng.normal(size=(5, 3, 4, 4))
    found = _correlate(x, weight, padding=1, stride=2)
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    assert found.shape == (2, 3, 3, 5)
    for row, column in np.ndindex(3, 3):
        part = around[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
        want = np.einsum("nhwc,ochw->no", part, weight)
        np.testing.assert_allclose(found[:, row, column], want, atol=1e-12)


def test_a_doubled_image_has_each_pixel_where_its_weights_lead():
    codec, made = MaskCodec(arrays()), arrays()
    x = np.random.default_rng(1).normal(size=(1, 3, 5, 8)).astype(np.float32)
    weight, bias = made["decoder.6.weight"], made["decoder.6.bias"]
    want = np.zeros((1, 8, 12, 4))  # a margin of one pixel
    for row, column in np.ndindex(3, 5):
        added = np.einsum("c,cokl->klo", x[0, row, column], weight)
        want[0, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += added
    found = codec._doubled("decoder.6", x)
    np.testing.assert_allclose(found, want[:, 1:-1, 1:-1] + bias, rtol=1e-5, atol=1e-6)


def test_cells_come_back_as_they_were():
    codec = MaskCodec(square_arrays())
    cells = np.random.default_rng(2).random((5, 4, 4)) > 0.5
    masks = cells.repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)
    codes = codec.encode(masks)
    np.testing.assert_array_equal(codes, cells.reshape(5, CODES))
    np.testing.assert_array_equal(codec.decode(codes) > 0, masks)


def test_a_mask_does_not_hang_on_others():
    codec = MaskCodec(arrays())
    codes = np.random.default_rng(3).integers(0, 128, (33, CODES))  # more than are computed at once
    together = codec.decode(codes)
    for number in (0, 1, 32):
        alone = codec.decode(codes[number : number + 1])[0]
        np.testing.assert_allclose(together[number], alone, rtol=1e-4, atol=1e-5)
    assert codec.decode([]).shape == (0, SIDE, SIDE)
    assert codec.encode(np.zeros((0, SIDE, SIDE))).shape == (0, CODES)


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        (np.zeros((1, 15), int), "expected whole numbers"),
        (np.zeros((1, 16)), "expected whole numbers"),
        (np.full((1, 16), 128), "from 128 to 128: expected 0 to 127"),
        (np.full((1, 16), -1), "expected 0 to 127"),
    ],
)
def test_other_codes_are_refused(codes, told):
    with pytest.raises(ValueError, match=told):
        MaskCodec(arrays()).decode(codes)


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        (np.zeros((64, 64)), "expected \\[N, 64, 64\\]"),
        (np.full((1, 64, 64), 255.0), "expected 0 to 1"),
        (np.full((1, 64, 64), np.nan), "expected 0 to 1"),
    ],
)
def test_other_masks_are_refused(masks, told):
    with pytest.raises(ValueError, match=told):
        MaskCodec(arrays()).encode(masks)


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("decoder.4.weight", None, "has no array 'decoder.4.weight'"),
        (
            "decoder.4.weight",
            np.zeros((7, 8, 4, 4)),
            r"\[7, 8, 4, 4\], expected \[8, \?, 4, 4\]",
        ),
        ("encoder.0.bias", np.zeros(3), r"shape \[3\], expected \[8\]"),
        ("_vq_vae._embedding", np.zeros((64, 16)), r"expected \[128, \?\]"),
        ("decoder.12.bias", np.array([np.nan]), "NaN"),
    ],
)
def test_another_file_is_refused_by_the_array(name, array, told):
    made = arrays()
    if array is None:
        del made[name]
    else:
        made[name] = array
    with pytest.raises(ValueError, match=told):
        MaskCodec(made)
