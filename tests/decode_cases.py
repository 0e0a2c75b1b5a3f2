"""What the tests of decoding share: short runs of small models."""

import functools

import jax
import model_cases as cases
import numpy as np

from paligemma_lib import decode

# What captions are made of where they should end soon.
LETTERS = (4, 5, 6)
# Compiling takes nearly all of the time, so tests share programs: shapes, samplers, room.
ROOM = 7
SAMPLERS = (decode.Greedy(), decode.Sample(top_p=0.9), decode.BestOf(3), decode.Beam(3))


@functools.cache
def model(version):
    """A configuration and random parameters, as jax.Array once and for all.

    Embeddings are made small and attention sharp, lest a token be followed by itself for ever.
    """
    config = cases.tiny_config(version)
    params = cases.random_params(config)
    params["llm"]["embedder"]["input_embedding"] *= 0.25
    params["llm"]["final_norm"]["scale"] += 7
    for name in ("q_einsum", "attn_vec_einsum"):
        params["llm"]["layers"]["attn"][name]["w"] *= 4
    return config, jax.tree.map(jax.numpy.asarray, params)


def images(config, count, seed=0):
    size = config.vision.image_size
    return np.random.default_rng(seed).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


def prompts(lengths, seed=0):
    """Prompts of these lengths, padded: int32[B, L], int32[B]."""
    rng = np.random.default_rng(seed)
    return decode.pad_prompts([rng.integers(4, 512, n).tolist() for n in lengths])


def all_but(*tokens):
    """Every id that is not among these: what to ban, so that only these come."""
    return set(range(512)) - set(tokens)


def run(config, params, image, prompt, length, k=None, **options):
    """Decodes to the end, k tokens at a time; returns the last state and NumPy hypotheses."""
    state = decode.prefill(config, params, image, prompt, length, **options)
    while not decode.finished(state):
        state = decode.extend(config, params, state, k or 1000)
    return state, jax.device_get(decode.hypotheses(state))


def ragged_images():
    """Five images with prompts of different lengths: as `prefill` takes them."""
    return images(model(2)[0], 5), *prompts([4, 2, 6, 1, 4])


def sequences(image, prompt, length, tokens):
    """The batch of prompts with their captions, and how many tokens each of these has."""
    rows, slots = len(tokens), prompt.shape[1] + tokens.shape[1]
    written = np.sum(tokens != 0, axis=1)
    batch = {
        "image": image,
        "text": np.zeros((rows, slots), np.int32),
        "segment": np.full((rows, slots), -1, np.int32),
        "position": np.zeros((rows, slots), np.int32),
    }
    for b, (n, m) in enumerate(zip(length, written, strict=True)):
        batch["text"][b, : n + m] = [*prompt[b, :n], *tokens[b, :m]]
        batch["segment"][b, : n + m] = [0] * n + [1] * m
        batch["position"][b, : n + m] = np.arange(n + m)
    return batch, written


def log_likelihood(config, params, image, prompt, length, tokens):
    """float32[B, M]: of each new token, by one full pass over the whole sequence."""
    batch, written = sequences(image, prompt, length, tokens)
    values = np.asarray(_log_likelihood(config, params, batch))
    out = np.zeros(tokens.shape, np.float32)
    for b, (n, m) in enumerate(zip(length, written, strict=True)):
        out[b, :m] = values[b, n : n + m]
    return out


_log_likelihood = jax.jit(cases.log_likelihood, static_argnums=0)
