"""A model of quantised parameters: the same numbers as of those undone, and no copy of them."""

import dataclasses

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from quantized_cases import quantized_params, undone

from paligemma_lib import decode, model, sharding
from paligemma_lib.model import vocabulary
from paligemma_lib.model.stack import scan_layers
from paligemma_lib.quantized import KINDS, abstract, quantize

DEPTH, WIDTH, HIDDEN = 8, 256, 1024
STACK_BYTES = DEPTH * 2 * WIDTH * HIDDEN * 4  # in float32

CONFIG = cases.tiny_config(2)

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", cases.VERSIONS)
def test_logits_are_those_of_the_weights_undone(kind, version):
    config = cases.tiny_config(version)
    params, batch = quantized_params(config, kind), cases.packed_batch(config)
    expected = cases.all_logits(config, undone(params), batch)
    np.testing.assert_allclose(
        cases.all_logits(config, params, batch), expected, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_those_of_the_weights_undone(kind):
    params = quantized_params(CONFIG, kind)
    images = cases.packed_batch(CONFIG)["image"]
    prompt, length = decode.pad_prompts([[2, 5, 6]] * len(images))

    def tokens(params):
        state = decode.prefill(CONFIG, params, images, prompt, length, max_new_tokens=6)
        return np.asarray(decode.extend(CONFIG, params, state, 5).written.tokens)

    np.testing.assert_array_equal(tokens(params), tokens(undone(params)))


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_beyond_the_table_are_nan(kind):
    table = quantize(np.ones((10, 64), np.float32), kind, "float32")
    config = dataclasses.replace(CONFIG, dtype="float32")
    x = vocabulary.embed(config, {"embedder": {"input_embedding": table}}, jnp.array([[3, 10]]))
    np.testing.assert_array_equal(np.isnan(x).all(axis=-1), [[False, True]])


def layer(x, params, _):
    hidden = jnp.tanh(x @ params["up"].astype(x.dtype))
    return x + hidden @ params["down"].astype(x.dtype), jnp.mean(x)


def stacks(kind, dtype):
    return {
        "up": abstract((DEPTH, WIDTH, HIDDEN), kind, dtype),
        "down": abstract((DEPTH, HIDDEN, WIDTH), kind, dtype),
    }


def temporaries(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_layer_at_a_time_is_undone(kind, dtype, optimized):
    def forward(params, x):
        return scan_layers(layer, x, params)[0]

    x = jax.ShapeDtypeStruct((8, WIDTH), dtype)
    assert temporaries(forward, stacks(kind, dtype), x) < STACK_BYTES / 4


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_weights_are_kept_for_the_backward_pass(kind, remat, optimized):
    def backward(params, x):
        return jax.grad(lambda x: jnp.sum(scan_layers(layer, x, params, remat=remat)[0]))(x)

    x = jax.ShapeDtypeStruct((8, WIDTH), "float32")
    with jax.set_mesh(sharding.make_mesh(devices=jax.devices()[:1])):
        assert temporaries(backward, stacks(kind, "float32"), x) < STACK_BYTES / 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_undone_in_chunks(kind, optimized):
    rows, width = 2**17, 128
    language = dataclasses.replace(CONFIG.language, vocab_size=rows, width=width)
    config = dataclasses.replace(CONFIG, language=language)
    params = {"embedder": {"input_embedding": abstract((rows, width), kind, "float32")}}

    def lookup_and_logits(params, tokens):
        x = vocabulary.embed(config, params, tokens)
        return vocabulary.logits(config, params, x)[:, -1, :2]

    tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    assert temporaries(lookup_and_logits, params, tokens) < rows * width * 4 / 3


def test_the_table_of_parameters_shows_what_is_stored():
    params = quantized_params(CONFIG, "nf4")
    lines = model.overview.parameter_table(params).splitlines()
    (line,) = (line for line in lines if line.startswith("llm/layers/mlp/linear"))
    _, *shape, dtype, count, _ = line.split()
    assert "".join(shape) == "[3,128,64]"
    assert (dtype, count) == ("nf4", "24,576")
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) / 2**20
    assert lines[-1].split()[-1] == f"{total:,.1f}"
