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
from paligemma_lib.decode.samples import Hypotheses, check_finite
from paligemma_lib.model.inputs import check_images
from paligemma_lib.model.variants import DTYPES, PaliGemmaConfig
from paligemma_lib.runtime.bounds import whole
from paligemma_lib.value_ranges import check_ids

MAX_TOKENS = 1 << 16  # of a caption; the largest context of a Gemma is 8,192 tokens


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
    if not isinstance(image, jax.Array):
        image = np.asarray(image)
    check_images("prefill", image, config.vision.image_size)
    check_sampler("prefill", sampler)
    batch, vocab_size = len(image), config.language.vocab_size
    if np.ndim(prompt) != 2 or len(prompt) != batch or np.shape(length) != (batch,):
        raise ValueError(
            f"prefill: {batch} images with a prompt of shape {np.shape(prompt)} and lengths of "
            f"shape {np.shape(length)}, expected [{batch}, L] and [{batch}]: see pad_prompts"
        )
    _check_prompts(prompt, length, vocab_size)
    min_new_tokens, max_new_tokens = checked_lengths("prefill", min_new_tokens, max_new_tokens)
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
    elif not isinstance(keys, jax.Array) or keys.shape[:1] != (batch,):
        raise ValueError(f"prefill: keys={keys!r:.60}, expected key[{batch}]: see image_keys")
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
      k: largest number of tokens to add, at least 1.

    Raises:
      ValueError: k is out of range.
    """
    k = whole("extend: k", k, 1, MAX_TOKENS)
    written, cache, step = extend_state(config, params, state, k)
    return dataclasses.replace(state, written=written, cache=cache, step=step)


def finished(state: State) -> bool:
    """Returns whether every caption is complete, so that `extend` would add nothing.

    A row is complete after EOS or with `max_new_tokens` tokens. `Beam` is complete when no live
    beam can improve its result.

    Raises:
      NotFinite: the model's logits for an image are NaN or infinite.
    """
    complete, broken = jax.device_get(_status(state))
    check_finite(np.flatnonzero(broken))
    return bool(complete)


@jax.jit
def _status(state: State) -> tuple[jax.Array, jax.Array]:
    return replicate(state.sharding, (is_finished(state), state.written.broken))


@jax.jit
def hypotheses(state: State) -> Hypotheses:
    """Returns the captions of each image, best first.

    For `Beam`, these are the captions that have ended; a score of -inf marks an empty slot. A score
    of NaN marks an image for which the model's logits were NaN or infinite.
    """
    return replicate(state.sharding, state.written.hypotheses())


@jax.jit
def tokens_so_far(state: State) -> jax.Array:
    """Returns int32[B, M]: the leading row of each image, PAD where no token is written yet."""
    return replicate(state.sharding, state.written.leading())


def check_sampler(what: str, sampler: Strategy) -> None:
    """Raises ValueError for what is no sampler, such as its name or its class."""
    fine = not isinstance(sampler, type) and hasattr(sampler, "rows") and hasattr(sampler, "random")
    if not fine or not (isinstance(sampler, Beam) or hasattr(sampler, "sample")):
        raise ValueError(
            f"{what}: sampler={sampler!r:.60}, expected an object such as Greedy(), Sample(), "
            "BestOf(3) or Beam(4)"
        )


def checked_lengths(what: str, min_new_tokens: int, max_new_tokens: int) -> tuple[int, int]:
    """Returns both as Python ints; raises ValueError if they are out of range."""
    most = whole(f"{what}: max_new_tokens", max_new_tokens, 1, MAX_TOKENS)
    least = whole(f"{what}: min_new_tokens", min_new_tokens, 0)
    if least >= most:
        raise ValueError(
            f"{what}: min_new_tokens={least} and max_new_tokens={most}, expected "
            "0 <= min_new_tokens < max_new_tokens"
        )
    return least, most


def _check_prompts(prompt: Any, length: Any, vocab_size: int) -> None:
    if isinstance(prompt, jax.Array) or isinstance(length, jax.Array):
        return  # looking at them would wait for the device
    prompt, length = np.asarray(prompt), np.asarray(length)
    if prompt.dtype.kind not in "iu" or length.dtype.kind not in "iu":
        raise ValueError(
            f"prefill: prompt is {prompt.dtype} and length {length.dtype}, expected int32"
        )
    check_ids("prefill", prompt, vocab_size)
    if length.size and not 1 <= length.min() <= length.max() <= prompt.shape[1]:
        raise ValueError(
            f"prefill: lengths of prompts from {length.min()} to {length.max()}, expected 1 to "
            f"{prompt.shape[1]}"
        )


def _banned(tokens: Iterable[int], vocab_size: int, sampler: Strategy) -> jax.Array | None:
    ids = sorted({whole("prefill: banned_tokens", each, 0, vocab_size - 1) for each in tokens})
    if not ids:
        return None
    if len(ids) == vocab_size:
        raise ValueError(f"prefill: banned_tokens: expected some, not all, of 0..{vocab_size - 1}")
    if isinstance(sampler, Beam) and EOS in ids:
        raise ValueError(f"prefill: {sampler} returns only captions that end: do not ban EOS")
    banned = np.zeros(vocab_size, bool)
    banned[ids] = True
    return jnp.asarray(banned)
