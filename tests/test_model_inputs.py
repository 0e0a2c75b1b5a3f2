"""Arrays of another range are refused with the range found, before they reach a device."""

import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_lib import testing
from paligemma_lib.model.inputs import check_batch, check_images

SIZE, VOCAB = 32, 512
IMAGE = np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "images",
    [
        IMAGE,
        1.2 * IMAGE,  # as resizing overshoots
        IMAGE.astype(np.float64),
        IMAGE.astype(np.float16),
        ((IMAGE + 1) * 127.5).astype(np.uint8),
        jnp.asarray(IMAGE, jnp.bfloat16),
        IMAGE[:0],
    ],
    ids=lambda images: str(images.dtype),
)
def test_images_of_the_contract_pass(images):
    check_images("generate", images, SIZE)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((IMAGE + 1) * 127.5, r"generate: images have values from \d+.* to 25\d.*x / 127.5 - 1"),
        (3 * IMAGE, "expected -1 to 1"),
        (np.full_like(IMAGE, np.inf), "from inf to inf"),
        (
            ((IMAGE + 1) * 127.5).astype(np.int32),
            "images are int32 from .* to 25.*expected float32",
        ),
        (jnp.zeros(IMAGE.shape, jnp.int32), "images are int32, expected float32"),
        (IMAGE > 0, "images are bool"),
        (IMAGE.astype(object), "images are object"),
        (IMAGE[0], r"shape \(32, 32, 3\), expected \(B, 32, 32, 3\)"),
        (np.moveaxis(IMAGE, 3, 1), "shape"),
    ],
)
def test_other_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        check_images("generate", images, SIZE)


def test_images_on_a_device_are_looked_at_if_one_may_wait():
    unscaled = jnp.asarray(127.5 * (IMAGE + 1), jnp.bfloat16)
    check_images("prefill", unscaled, SIZE)
    with pytest.raises(ValueError, match="images have values from .* to 25.*expected -1 to 1"):
        check_images("generate", unscaled, SIZE, wait=True)
    check_images("generate", jnp.asarray(IMAGE, jnp.bfloat16), SIZE, wait=True)


def batch(**changes):
    found = testing.tiny_batch(testing.tiny_tokenizer(), batch_size=2, captions=2)
    return {**found, **changes}


def changed(name, value, place=(1, 3)):
    array = batch()[name].copy()
    array[place] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"valid": np.ones(2, bool)}, None),
        (changed("text", -100), "text has the id -100 in example 1, position 3.*loss_weight 0"),
        (changed("text", VOCAB), "text has the id 512"),
        (changed("loss_weight", np.nan), "loss_weight is nan in example 1, position 3"),
        (changed("loss_weight", -1), "loss_weight is -1.0"),
        (changed("image", 200, ...), "images have values from 200 to 200"),
        ({"image": batch()["image"][:1]}, r"text has the shape \(2, .* and 1 images"),
        ({"text": batch()["text"].astype(np.float32)}, "text is float32, expected int32"),
        ({"text": batch()["text"][:, :5]}, ".*expected .2, T. for all text arrays"),
        ({"loss_weight": batch()["text"]}, "loss_weight is int32, expected float32"),
        ({"segment": batch()["segment"].tolist()}, "segment is of type list, expected an array"),
    ],
)
def test_batches(changes, message):
    given = batch(**changes)
    if message is None:
        check_batch("train step", given, SIZE, VOCAB)
        return
    with pytest.raises(ValueError, match=f"train step: {message}"):
        check_batch("train step", given, SIZE, VOCAB)


def test_what_a_batch_lacks_is_named():
    with pytest.raises(ValueError, match="the batch has no segment, position"):
        check_batch(
            "train step", {**dict.fromkeys(("image", "text", "loss_weight"), IMAGE)}, SIZE, VOCAB
        )
