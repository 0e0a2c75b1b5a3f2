"""Names that changed work on, and say what they are called now."""

import warnings

import jax
import numpy as np
import pytest

import paligemma_lib as pg
from paligemma_lib import batch, model, sharding
from paligemma_lib.deprecation import former_arguments


@pytest.mark.parametrize(
    "module, before, now",
    [
        (batch, "may_see", "attention_mask"),
        (batch, "predicted_from", "source_positions"),
        (model, "previous_slot", "source_positions"),
        (sharding, "relaid", "resharded"),
        (pg.data, "from_pictures", "from_image_files"),
    ],
)
def test_a_name_of_before_is_the_one_of_today(module, before, now):
    with pytest.warns(DeprecationWarning, match=f"{before} was renamed to {now}"):
        assert getattr(module, before) is getattr(module, now)


def test_arguments_of_before_are_taken():
    @former_arguments(mirror="horizontal_flip")
    def flip(image, *, horizontal_flip=False):
        return image[:, ::-1] if horizontal_flip else image

    image = np.arange(6).reshape(2, 3)
    with pytest.warns(DeprecationWarning, match=r"flip\(mirror=\) was renamed to horizontal_flip"):
        np.testing.assert_array_equal(flip(image, mirror=True), image[:, ::-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(flip(image, horizontal_flip=False), image)


@pytest.mark.parametrize("module", [batch, model, sharding, pg.data])
def test_what_never_was_is_an_error(module):
    with pytest.raises(AttributeError, match="attribute"):
        getattr(module, "never" + "_was")


def test_one_rule_serves_numpy_and_jax():
    segment = np.array([[0, 0, 1, 1, 2, -1]], np.int32)
    position = np.array([[0, 1, 2, 3, 2, 0]], np.int32)
    ours = batch.attention_mask(segment, position, 3)
    theirs = jax.jit(batch.attention_mask, static_argnums=2)(segment, position, 3)
    assert isinstance(ours, np.ndarray) and isinstance(theirs, jax.Array)
    np.testing.assert_array_equal(ours, theirs)
