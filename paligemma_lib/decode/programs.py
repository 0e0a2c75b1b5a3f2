"""Defines the jitted programs of the token loop and the state that they pass on.

    prompt, hidden = read_inputs(config, "float32", sharding, params, image, text, length)
    written, cache, step = begin(config, sampler, M, sharding, params, prompt, hidden, ...)
    written, cache, step = extend_state(config, params, state, k)

`loop` calls them in this order. `planning` compiles them for devices that this machine lacks.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from paligemma_lib.batch import EOS
from paligemma_lib.decode.beam import Beam, Beams
from paligemma_lib.decode.devices import split_rows, weight_shards
from paligemma_lib.decode.prompt import Prompt, empty_cache, read_prompt, read_token, reorder
from paligemma_lib.decode.samplers import Sampler
from paligemma_lib.decode.samples import Choice, Samples
from paligemma_lib.model import vocabulary
from paligemma_lib.model.gemma import KeyValue
from paligemma_lib.model.variants import PaliGemmaConfig

Strategy = Sampler | Beam


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("prompt", "keys", "banned", "min_new_tokens", "written", "cache", "step"),
    meta_fields=("sharding",),
)
@dataclasses.dataclass(frozen=True)
class State:
    """Unfinished captions of B images, with R rows for each image and up to M tokens in each row.

    Attributes:
      prompt: keys and values of images and prompts, shared by the rows of an image.
      keys: key[B], random key of each image.
      banned: bool[V], true for tokens that are never chosen; None: every token is allowed.
      min_new_tokens: int32[], number of tokens that must precede EOS.
      written: tokens, their log-probabilities, and the state of the sampler or beam search.
      cache: keys and values of new tokens, dtype[depth, B * R, M - 1, K, H] each.
      step: int32[], number of tokens written to each row.
      sharding: how the axis B of all arrays is split over devices; None: the images are on no mesh.
    """

    prompt: Prompt
    keys: jax.Array
    banned: jax.Array | None
    min_new_tokens: jax.Array
    written: Samples | Beams
    cache: KeyValue
    step: jax.Array
    sharding: NamedSharding | None


@jax.jit
def is_finished(state: State) -> jax.Array:
    """Returns bool[]: whether all images are done, or all rows have M tokens."""
    return jnp.all(state.written.done()) | (state.step >= state.written.tokens.shape[2])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def read_inputs(
    config: PaliGemmaConfig,
    cache_dtype: str,
    sharding: NamedSharding | None,
    params: dict[str, Any],
    image: jax.Array,
    text: jax.Array,
    length: jax.Array,
) -> tuple[Prompt, jax.Array]:
    """Reads images and prompts.

    Returns:
      Their keys and values, and dtype[B, D], the final hidden state of each prompt's last token.
    """
    prompt, hidden = read_prompt(config, params, image, text, length, cache_dtype)
    prompt = Prompt(split_rows(sharding, prompt.cache, 1), split_rows(sharding, prompt.length))
    return prompt, split_rows(sharding, hidden)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def begin(
    config: PaliGemmaConfig,
    sampler: Strategy,
    max_new_tokens: int,
    sharding: NamedSharding | None,
    params: dict[str, Any],
    prompt: Prompt,
    hidden: jax.Array,
    keys: jax.Array,
    banned: jax.Array | None,
    min_new_tokens: jax.Array,
) -> tuple[Samples | Beams, KeyValue, jax.Array]:
    """Chooses the first token of every row; returns `written`, an empty `cache`, and `step`."""
    written: Samples | Beams
    if isinstance(sampler, Beam):
        written = Beams.empty(sampler, len(hidden), max_new_tokens)
    else:
        written = Samples.empty(sampler, len(hidden), max_new_tokens)
    # The last of M tokens is chosen but never read by the model, so the cache has M - 1 entries.
    # With M = 1 it still has one, so that no array is empty.
    cache = empty_cache(prompt, len(hidden) * sampler.rows, max(1, max_new_tokens - 1))
    cache = split_rows(sharding, cache, 1)
    step = jnp.zeros((), jnp.int32)
    state = State(prompt, keys, banned, min_new_tokens, written, cache, step, sharding)
    written, _ = _choose(config, params, state, hidden)
    return written, cache, step + 1


@functools.partial(jax.jit, static_argnums=0)
def extend_state(
    config: PaliGemmaConfig, params: dict[str, Any], state: State, k: jax.Array
) -> tuple[Samples | Beams, KeyValue, jax.Array]:
    """Adds up to k tokens to every row; returns the new `written`, `cache` and `step`."""
    end = state.step + k

    def proceed(state: State) -> jax.Array:
        return (state.step < end) & ~is_finished(state)

    def add_token(state: State) -> State:
        # Each iteration reads token step - 1, whose keys and values become entry step - 1 of the
        # cache, and chooses token `step`.
        step = state.step
        token = state.written.tokens[:, :, step - 1].reshape(-1)
        hidden, cache = read_token(config, params, state.prompt, state.cache, token, step - 1)
        written, parent = _choose(config, params, state, hidden)
        # A beam needs the keys and values of the beam that it continues, so rows are reordered. All
        # rows of an image share those of the prompt, which stay where they are.
        if parent is not None:
            cache = reorder(cache, parent)
        cache = split_rows(state.sharding, cache, 1)
        return dataclasses.replace(state, written=written, cache=cache, step=step + 1)

    # A `while_loop`, unlike a `scan`, can stop when the last caption ends. And `k` may be traced:
    # adding 4 tokens at a time and adding all 64 use the same program.
    state = jax.lax.while_loop(proceed, add_token, state)
    return state.written, state.cache, state.step


def _choose(
    config: PaliGemmaConfig, params: dict[str, Any], state: State, hidden: jax.Array
) -> tuple[Samples | Beams, jax.Array | None]:
    """Adds a token to every row, chosen from the logits of its last hidden state.

    Returns:
      The new `written`, and int32[B, R], the row that each row continues; None: its own.
    """
    logits = row_logits(config, params, state.sharding, hidden, len(state.keys))
    # Reported log-probabilities come from the unchanged `logits`. Tokens are chosen from `allowed`,
    # where banned tokens, and EOS before `min_new_tokens`, are -inf.
    allowed = logits if state.banned is None else jnp.where(state.banned, -jnp.inf, logits)
    eos = jnp.where(state.step < state.min_new_tokens, -jnp.inf, allowed[..., EOS])
    allowed = allowed.at[..., EOS].set(eos)
    choice = Choice(logits, allowed, state.step, state.keys)
    written, parent = state.written.advance(choice)
    return split_rows(state.sharding, written), parent


def row_logits(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    sharding: NamedSharding | None,
    hidden: jax.Array,
    images: int,
) -> jax.Array:
    """Returns float32[B, R, V]: of hidden states [B, D] after the prompt, or [B * R, D] later."""
    logits = vocabulary.logits(config, params["llm"], hidden, shards=weight_shards(sharding))
    return logits.reshape(images, -1, logits.shape[-1])
