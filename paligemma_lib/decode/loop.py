"""Runs the token loop: `prefill` writes the first token of every row, `extend` up to k more.

    state = prefill(config, params, image, prompt, length, sampler=Beam(4))
    while not finished(state):
        state = extend(config, params, state, 4)
        show(tokens_so_far(state))
    best = hypotheses(state)

Every image has R rows: sequences that are generated at the same time, such as beams or samples. All
rows of an image share the keys and values of the image and its prompt.

The program that reads images and prompts is compiled once for each config, cache dtype, and shapes,
dtypes and shardings of its arguments. The programs that run the decoder and choose tokens also
depend on the sampler, on `max_new_tokens`, and on whether there are banned tokens. Other values of
images, keys, banned tokens, `min_new_tokens` and k reuse the compiled programs.

A state is immutable, so two calls of `extend` may start from the same state. For this reason its
buffers are not donated: an old state keeps its own cache in memory until it is dropped.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib.batch import EOS
from paligemma_lib.decode.beam import Beam
from paligemma_lib.decode.devices import replicate, rows_sharding
from paligemma_lib.decode.programs import (
    State,
    Strategy,
    begin,
    extend_state,
    is_finished,
    read_inputs,
)
from paligemma_lib.decode.samplers import Greedy, image_keys
from paligemma_lib.decode.samples import Hypotheses
from paligemma_lib.model.variants import DTYPES, PaliGemmaConfig


def prefill(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    image: jax.Array | np.ndarray,
    prompt: jax.Array | np.ndarray,
    length: jax.Array | np.ndarray,
    *,
    sampler: Strategy = Greedy(),  # noqa: B008 (frozen)
    max_new_tokens: int = 64,
    min_new_tokens: int = 0,
    banned_tokens: Iterable[int] = (),
    keys: jax.Array | None = None,
    cache_dtype: str | None = None,
) -> State:
    """Reads images and prompts and chooses the first token of every row.

    Args:
      config: the model.
      params: its parameters, see `model.init`; on one device or many, with any sharding.
      image: float32[B, S, S, 3] in [-1, 1] or uint8[B, S, S, 3]. If its axis 0 is sharded over
        devices, this function shards everything else that has the axis B in the same way.
      prompt: int32[B, L], padded on the right; see `pad_prompts`.
      length: int32[B], number of tokens of each prompt, 1 to L.
      sampler: `Greedy`, `Sample`, `BestOf`, `Beam`, or a `Sampler` of your own.
      max_new_tokens: M, the largest number of tokens of a caption, including EOS.
      min_new_tokens: number of tokens that must precede EOS.
      banned_tokens: token ids that are never chosen. Reported log-probabilities are those of the
        model's full distribution, as if no token were banned.
      keys: key[B], one random key for each image, required by samplers that draw at random; see
        `image_keys`.
      cache_dtype: dtype of the attention's key/value cache; None: `config.dtype`.

    Returns:
      The state after the first token.

    Raises:
      ValueError: the arguments do not fit together, or one is out of range.
    """
    batch, vocab_size = len(image), config.language.vocab_size
    if np.ndim(prompt) != 2 or len(prompt) != batch or np.shape(length) != (batch,):
        raise ValueError(
            f"prefill: {batch} images with a prompt of shape {np.shape(prompt)} and lengths of "
            f"shape {np.shape(length)}, expected [{batch}, L] and [{batch}]: see pad_prompts"
        )
    if not 0 <= min_new_tokens < max_new_tokens:
        raise ValueError(
            f"prefill: min_new_tokens={min_new_tokens} and max_new_tokens={max_new_tokens}, "
            "expected 0 <= min_new_tokens < max_new_tokens"
        )
    cache_dtype = cache_dtype or config.dtype
    if cache_dtype not in DTYPES:
        raise ValueError(f"prefill: cache_dtype={cache_dtype!r}, expected one of {DTYPES}")
    if keys is None:
        if sampler.random:
            raise ValueError(
                f"prefill: {sampler} draws at random and needs a key for each image: "
                "keys=image_keys(jax.random.key(0), range(batch))"
            )
        # This sampler ignores its keys, but the programs take them as an argument.
        keys = image_keys(jax.random.key(0), range(batch))
    sharding, banned = rows_sharding(image), _banned(banned_tokens, vocab_size, sampler)
    read, hidden = read_inputs(config, cache_dtype, sharding, params, image, prompt, length)
    written, cache, step = begin(
        config, sampler, max_new_tokens, sharding,
        params, read, hidden, keys, banned, min_new_tokens,
    )  # fmt: skip
    # `begin` has traced it. In the state it is an array, as all that `extend_state` traces.
    minimum = jnp.int32(min_new_tokens)
    return State(read, keys, banned, minimum, written, cache, step, sharding)


def extend(config: PaliGemmaConfig, params: dict[str, Any], state: State, k: int) -> State:
    """Adds up to k tokens to every row; stops early once `finished` is true.

    Args:
      config: the same as for `prefill`.
      params: the same as for `prefill`.
      state: returned by `prefill` or an earlier `extend`.
      k: largest number of tokens to add.
    """
    written, cache, step = extend_state(config, params, state, k)
    return dataclasses.replace(state, written=written, cache=cache, step=step)


def finished(state: State) -> bool:
    """Returns whether every caption is complete, so that `extend` would add nothing.

    A row is complete after EOS or with `max_new_tokens` tokens. `Beam` is complete when no live
    beam can improve its result.
    """
    return bool(is_finished(state))


@jax.jit
def hypotheses(state: State) -> Hypotheses:
    """Returns the captions of each image, best first.

    For `Beam`, these are the captions that have ended; a score of -inf marks an empty slot.
    """
    return replicate(state.sharding, state.written.hypotheses())


@jax.jit
def tokens_so_far(state: State) -> jax.Array:
    """Returns int32[B, M]: the leading row of each image, PAD where no token is written yet."""
    return replicate(state.sharding, state.written.leading())


def _banned(tokens: Iterable[int], vocab_size: int, sampler: Strategy) -> jax.Array | None:
    ids = sorted(set(tokens))
    if not ids:
        return None
    if ids[0] < 0 or ids[-1] >= vocab_size or len(ids) == vocab_size:
        raise ValueError(
            f"prefill: banned_tokens has {len(ids)} ids from {ids[0]} to {ids[-1]}, expected some, "
            f"not all, of 0..{vocab_size - 1}"
        )
    if isinstance(sampler, Beam) and EOS in ids:
        raise ValueError(f"prefill: {sampler} returns only captions that end: do not ban EOS")
    banned = np.zeros(vocab_size, bool)
    banned[ids] = True
    return jnp.asarray(banned)
