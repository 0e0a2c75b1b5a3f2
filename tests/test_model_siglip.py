"""The vision tower's inputs and position embeddings; its results are in test_model_parity."""

import dataclasses

import jax
import ml_dtypes
import model_cases as cases
import numpy as np
import pytest
import scipy.ndimage

from paligemma_lib.model import siglip

CONFIG = cases.tiny_config(1)


encode = jax.jit(siglip.encode, static_argnums=0)


@pytest.fixture(scope="module")
def params():
    return cases.random_params(CONFIG)["img"]


pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_uint8_is_scaled_to_the_same_tokens(params):
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    scaled = (image / 127.5 - 1).astype(np.float32)
    from_bytes = encode(CONFIG, params, image)
    np.testing.assert_allclose(from_bytes, encode(CONFIG, params, scaled), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 48, 48, 3), (2, 32, 32, 1), (32, 32, 3)])
def test_other_shapes_are_an_error(params, shape):
    with pytest.raises(ValueError, match=r"expected \(B, 32, 32, 3\). Resize it"):
        siglip.encode(CONFIG, params, np.zeros(shape, np.float32))


@pytest.mark.parametrize(("old", "new"), [(16, 32), (16, 64), (7, 5)])
def test_position_embeddings_move_as_scipy_zooms(old, new):
    embedding = np.random.default_rng(0).normal(size=(1, old**2, 6)).astype(np.float32)
    grid = embedding.reshape(old, old, 6)
    expected = scipy.ndimage.zoom(grid, (new / old, new / old, 1), order=1)
    got = siglip.resize_position_embedding(embedding, new**2)
    assert got.shape == (1, new**2, 6) and got.dtype == np.float32
    np.testing.assert_allclose(got.reshape(new, new, 6), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_position_embeddings_keep_their_type(dtype):
    embedding = np.random.default_rng(0).normal(size=(1, 16, 6)).astype(dtype)
    assert siglip.resize_position_embedding(embedding, 64).dtype == dtype
    assert siglip.resize_position_embedding(embedding, 16) is embedding


def test_position_embeddings_need_a_square_grid():
    with pytest.raises(ValueError, match="from 16 to 60 patches: both must be square numbers"):
        siglip.resize_position_embedding(np.zeros((1, 16, 6), np.float32), 60)


def test_the_residual_stream_may_exceed_float16():
    config = dataclasses.replace(CONFIG, dtype="float16")
    params = cases.random_params(CONFIG)["img"]
    params["pos_embedding"] = params["pos_embedding"] * 1e6
    image = np.zeros((1, 32, 32, 3), np.float32)
    got = np.asarray(encode(config, params, image), np.float32)
    expected = np.asarray(encode(CONFIG, params, image))
    assert np.abs(got - expected).max() < 0.01 * np.abs(expected).max()
