"""The token loop: `prefill` reads images and prompts, `extend` adds at most k tokens to captions.

    state = prefill(config, params, image, prompt, length, sampler=Beam(4))
    while not finished(state):
        state = extend(config, params, state, 4)
        show(tokens_so_far(state))
    best = hypotheses(state)

Every image has R rows: sequences that are written at the same time, such as beams or samples. All
rows of an image share the keys and values of its image and prompt.

What is compiled, and for what: reading images and prompts, once for each config, batch size, prompt
length and type of the cache; choosing tokens, also for each sampler, each `max_new_tokens`, and
with or without banned tokens. Other images, keys, sets of banned tokens, `min_new_tokens` and k use
the same programs. A state is never changed: two calls of `extend` may go on from the same one. (So
its memory is not reused, and an old state should not be held longer than needed.)
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
      params: its parameters, see `model.init`; on one device or many, split in any way.
      image: float32[B, S, S, 3] in [-1, 1] or uint8[B, S, S, 3]. Where axis 0 is sharded over
        devices, all that has B is sharded in the same way.
      prompt: int32[B, L], padded on the right; see `pad_prompts`.
      length: int32[B], tokens of each prompt, 1 to L.
      sampler: `Greedy`, `Sample`, `BestOf`, `Beam`, or a `Sampler` of one's own.
      max_new_tokens: M, the most tokens, EOS included.
      min_new_tokens: how many tokens must come before EOS may.
      banned_tokens: ids that are never chosen. The log-probabilities that are reported are the
        model's own, as if nothing were banned.
      keys: key[B], random keys, which samplers that draw need; see `image_keys`.
      cache_dtype: type of the attention's key/value cache; None: `config.dtype`.

    Raises:
      ValueError: an argument does not fit.
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
        keys = image_keys(jax.random.key(0), range(batch))
    sharding, banned = rows_sharding(image), _banned(banned_tokens, vocab_size, sampler)
    read, hidden = read_inputs(config, cache_dtype, sharding, params, image, prompt, length)
    written, cache, step = begin(
        config, sampler, max_new_tokens, sharding,
        params, read, hidden, keys, banned, min_new_tokens,
    )  # fmt: skip
    minimum = jnp.int32(min_new_tokens)
    return State(read, keys, banned, minimum, written, cache, step, sharding)


def extend(config: PaliGemmaConfig, params: dict[str, Any], state: State, k: int) -> State:
    """Adds at most k tokens to every row, with the config and parameters of `prefill`.

    It stops as soon as all rows have ended, by EOS, or are full.
    """
    written, cache, step = extend_state(config, params, state, k)
    return dataclasses.replace(state, written=written, cache=cache, step=step)


def finished(state: State) -> bool:
    """Whether all rows have ended or are full, so that `extend` would add nothing."""
    return bool(is_finished(state))


@jax.jit
def hypotheses(state: State) -> Hypotheses:
    """Captions of each image, best first; of `Beam`, those that have ended (score -inf: none)."""
    return replicate(state.sharding, state.written.hypotheses())


@jax.jit
def tokens_so_far(state: State) -> jax.Array:
    """int32[B, M]: the best row of each image so far, PAD where nothing is written yet."""
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
