"""Arrays in int8 and nf4: how far values move, what they take, how rows are cut out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm

from paligemma_lib.quantized import KINDS, abstract, dequantized, quantize
from paligemma_lib.quantized.array_type import NF4

pytestmark = pytest.mark.usefixtures("strict_promotion")

rows = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=70),
    elements=st.floats(-1e4, 1e4, width=32),
    fill=st.floats(-2, 2, width=32),
)


def blocks_of(values):
    """[N, blocks, 64] with zeros behind the last values of a row."""
    flat = values.reshape(len(values), -1)
    missing = -flat.shape[1] % 64
    return np.pad(flat, ((0, 0), (0, missing))).reshape(len(values), -1, 64)


@given(values=rows, kind=st.sampled_from(KINDS))
@settings(max_examples=30, deadline=None)
def test_no_value_moves_by_more_than_half_a_step_of_its_block(values, kind):
    error = blocks_of(np.abs(quantize(values, kind, "float32")[:] - values))
    largest = np.abs(blocks_of(values)).max(axis=2)
    # A scale is rounded up by at most one of 255 steps, between the square roots of scales.
    top = largest.max(axis=1, keepdims=True)
    scale = np.square(np.sqrt(largest) + np.sqrt(top) / 255)
    half_step = {"int8": 1 / 254, "nf4": np.diff(NF4).max() / 2}[kind]
    assert (error <= (scale * half_step * (1 + 1e-5))[..., None] + 1e-30).all()


@pytest.mark.parametrize("kind", KINDS)
def test_each_value_gets_the_nearest_code(kind):
    values = np.random.default_rng(0).normal(size=(2, 40, 64)).astype(np.float32)
    stored = quantize(values, kind, "float32")
    undone = blocks_of(stored[:])
    share = (stored.scales.astype(np.float32) / 255) ** 2
    scale = share * np.repeat(stored.maxima, share.shape[1] // stored.maxima.shape[1], axis=1)
    levels = np.arange(-127, 128) / 127 if kind == "int8" else np.array(NF4)
    all_levels = levels * scale[..., None, None]
    nearest = np.abs(blocks_of(values)[..., None] - all_levels).min(axis=-1)
    np.testing.assert_allclose(np.abs(blocks_of(values) - undone), nearest, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_and_their_neighbours_stay_zero(kind):
    values = np.random.default_rng(0).normal(size=(2, 200)).astype(np.float32)
    values[:, ::3] = 0
    values[1] = 0
    undone = quantize(values, kind, "float32")[:]
    assert not undone[values == 0].any()
    assert not np.isnan(undone).any()


def test_an_outlier_spoils_its_own_block_only():
    values = np.random.default_rng(0).normal(size=(1, 256, 64)).astype(np.float32)
    before = np.abs(quantize(values, "nf4", "float32")[:] - values)
    values[0, 7, 7] = 100
    after = np.abs(quantize(values, "nf4", "float32")[:] - values)
    others = np.arange(256) != 7
    assert after[0, others].mean() < 1.1 * before[0, others].mean()
    assert after[0, 7].mean() > 5 * before[0, 7].mean()


def test_the_levels_are_those_that_qlora_publishes():
    # Appendix E of arXiv 2305.14314: quantiles with the same share of a normal distribution between
    # them, 8 below zero and 7 above, and zero; scaled to 1.
    offset = 0.9677083
    below = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    above = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    published = np.sort([*below, 0, *above])
    np.testing.assert_allclose(NF4, published / published.max(), atol=1e-6)


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8.13), ("nf4", 4.13)])
def test_a_layer_of_3b_takes_what_is_promised(kind, bits):
    for shape in ((18, 2, 2048, 16384), (27, 1152, 4304), (257152, 2048)):
        stored = abstract(shape, kind, "bfloat16")
        assert stored.shape == shape
        assert 8 * stored.nbytes / np.prod(shape) == pytest.approx(bits, abs=0.015)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 63), (2, 64), (2, 65), (2, 3, 200), (2, 5, 7, 40)])
def test_shapes_are_known_before_anything_is_quantised(shape, kind):
    stored = quantize(np.ones(shape, np.float32), kind, "bfloat16")
    expected = jax.tree.map(
        lambda part: (part.shape, part.dtype), abstract(shape, kind, "bfloat16")
    )
    assert jax.tree.map(lambda part: (part.shape, part.dtype), stored) == expected
    assert (stored.shape, stored.dtype) == (shape, jnp.bfloat16)
    assert dequantized({"w": stored})["w"].shape == shape


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_cut_out_and_regrouped(kind):
    values = np.random.default_rng(0).normal(size=(6, 5, 30)).astype(np.float32)
    stored = quantize(values, kind, "float32")
    np.testing.assert_array_equal(stored[2:5], stored[:][2:5])
    assert isinstance(stored[2:5], np.ndarray)
    regrouped = stored.reshape(2, -1, 5, 30)
    assert regrouped.shape == (2, 3, 5, 30)
    np.testing.assert_array_equal(regrouped[:], stored[:].reshape(2, 3, 5, 30))
    with pytest.raises(ValueError, match=r"\(6, 5, 30\) has no shape \(30, 30\)"):
        stored.reshape(30, 30)


def test_nothing_is_differentiated():
    stored = quantize(np.ones((2, 64), np.float32), "int8", "float32")

    def loss(maxima):
        return jnp.sum(stored.__class__(
            stored.codes, stored.scales, maxima, stored.kind, stored.tail, stored.dtype
        ).dequantize())  # fmt: skip

    with pytest.raises(ValueError, match="do not train: load those that train as float32"):
        jax.grad(loss)(jnp.ones((2, 1)))
