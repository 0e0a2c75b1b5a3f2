"""Logits that are NaN or infinite are an error that names the image, never an empty caption."""

import dataclasses

import decode_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_lib import decode, testing

SAMPLERS = [decode.Greedy(), decode.Sample(), decode.BestOf(3), decode.Beam(3)]


@pytest.fixture(scope="module")
def tokenizer():
    return testing.tiny_tokenizer()


def broken_images(count=4):
    """Images of which number 2 has a NaN that no check of the input can see."""
    images = cases.images(cases.model(2)[0], count)
    images[2, 1, 1, 0] = np.nan
    return images


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("batch_size", [None, 3])
def test_generate_names_the_image(tokenizer, sampler, batch_size):
    options = {"sampler": sampler, "batch_size": batch_size, "max_new_tokens": cases.ROOM}
    with pytest.raises(ValueError, match=r"logits for image 12 are NaN.*bfloat16"):
        decode.generate(
            *cases.model(2), jnp.asarray(broken_images()), tokenizer,
            key=jax.random.key(0), first_number=10, **options,
        )  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_a_loop_of_ones_own_is_told(sampler):
    config, params = cases.model(2)
    state = decode.prefill(
        config, params, broken_images(), *cases.prompts([4, 2, 6, 1]), sampler=sampler,
        max_new_tokens=cases.ROOM, keys=decode.image_keys(jax.random.key(0), range(4)),
    )  # fmt: skip
    with pytest.raises(ValueError, match="logits for image 2 are NaN"):
        decode.finished(state)
    found = jax.device_get(decode.hypotheses(decode.extend(config, params, state, 2)))
    assert np.isnan(found.score).any(axis=1).tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="logits for image 7 are NaN"):
        decode.captions_from(found, testing.tiny_tokenizer(), first_number=5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_parameters_break_every_image(tokenizer, value):
    config, params = cases.model(2)
    table = params["llm"]["embedder"]["input_embedding"].at[300, 0].set(value)
    params = {**params, "llm": {**params["llm"], "embedder": {"input_embedding": table}}}
    with pytest.raises(ValueError, match="image 0 and 2 more are NaN"):
        decode.generate(
            config, params, cases.images(config, 3), tokenizer, max_new_tokens=cases.ROOM
        )


def test_float16_that_overflows_is_told_of(tokenizer):
    config, params = cases.model(2)
    config = dataclasses.replace(config, dtype="float16")
    scale = params["img"]["embedding"]["kernel"] * 1e6
    params = {**params, "img": {**params["img"]}}
    params["img"]["embedding"] = {**params["img"]["embedding"], "kernel": scale}
    with pytest.raises(ValueError, match="float16.*use bfloat16"):
        decode.generate(
            config, params, cases.images(config, 1), tokenizer, max_new_tokens=cases.ROOM
        )


@pytest.mark.parametrize("sampler", [decode.Greedy(), decode.Beam(3)])
def test_banned_tokens_break_nothing(tokenizer, sampler):
    config, params = cases.model(2)
    banned = cases.all_but(1, *cases.LETTERS)
    (caption,) = decode.generate(
        config, params, cases.images(config, 1), tokenizer, sampler=sampler,
        max_new_tokens=cases.ROOM, min_new_tokens=2, banned_tokens=banned,
    )  # fmt: skip
    assert set(caption.tokens) <= {1, *cases.LETTERS}
