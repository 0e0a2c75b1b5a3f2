"""The embedding table: what is looked up in it, and logits from it, chunk by chunk."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import tiny_config

from paligemma_lib.model import vocabulary

pytestmark = pytest.mark.usefixtures("strict_promotion")

CONFIG = tiny_config(2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_embedding_table_is_never_widened(dtype):
    rows, width = 2**17, 128
    language = dataclasses.replace(CONFIG.language, vocab_size=rows, width=width)
    config = dataclasses.replace(CONFIG, language=language)
    params = {"embedder": {"input_embedding": jax.ShapeDtypeStruct((rows, width), dtype)}}

    def lookup_and_logits(params, tokens):
        x = vocabulary.embed(config, params, tokens)
        return vocabulary.logits(config, params, x)[:, -1, :2]

    tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    compiled = jax.jit(lookup_and_logits).lower(params, tokens).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < rows * width * 4 / 3


@pytest.mark.parametrize("parts", [1, 4, 7])
def test_logits_in_chunks_are_logits(parts):
    rows = 3 * 16_384
    table = np.random.default_rng(0).normal(size=(rows, 64)).astype(jnp.bfloat16)
    llm = {"embedder": {"input_embedding": table}}
    hidden = np.random.default_rng(1).normal(size=(2, 3, 64)).astype(np.float32)
    expected = hidden @ table.astype(np.float32).T
    got = vocabulary.logits(CONFIG, llm, hidden, shards=parts)
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "most", "chunks"),
    [(98_304, 32_768, 3), (257_216, 16_384, 16), (257_216 // 8, 2_048, 8), (300, 16_384, 1)],
)
def test_chunks_are_equal_and_few(rows, most, chunks):
    assert vocabulary.num_chunks(rows, most) == chunks
