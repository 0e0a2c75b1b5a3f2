"""The token loop: a state after the prompt, and at most k tokens more, as one compiled loop.

    state = prefill(config, params, image, prompt, length, sampler=Beam(4))
    while not finished(state):
        state = extend(config, params, state, 4)
        show(tokens_so_far(state))
    best = hypotheses(state)

Images and prompts are read by a program compiled once for each config and set of shapes; choosing
tokens and going on is compiled for each sampler too. JAX keeps them: a call with other images,
keys, banned tokens or k traces nothing anew. A state is never changed, so it may be extended twice.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from paligemma_lib.batch import EOS
from paligemma_lib.decode.beam import Beam, Beams
from paligemma_lib.decode.devices import everywhere, rows_sharding, split_rows, weight_parts
from paligemma_lib.decode.prompt import Prompt, empty_cache, read_prompt, read_token, reorder
from paligemma_lib.decode.samplers import BestOf, Greedy, Sample, image_keys
from paligemma_lib.decode.samples import Choice, Hypotheses, Samples
from paligemma_lib.model import vocabulary
from paligemma_lib.model.gemma import KeyValue
from paligemma_lib.model.variants import DTYPES, PaliGemmaConfig

Sampler = Greedy | Sample | BestOf | Beam


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("prompt", "keys", "banned", "min_new_tokens", "written", "cache", "step"),
    meta_fields=("sharding",),
)
@dataclasses.dataclass(frozen=True)
class State:
    """Captions of B images in the making: R rows each, room for M tokens in each.

    Attributes:
      prompt: keys and values of images and prompts, which the rows of an image share.
      keys: key[B], each image's own randomness.
      banned: bool[V], tokens that never come; None: all may.
      min_new_tokens: int32[], EOS does not come before this many others.
      written: the tokens, their log-probabilities, and what the search remembers.
      cache: keys and values of new tokens, dtype[depth, B * R, slots, K, H] each.
      step: int32[], number of tokens written.
      sharding: over which devices axis 0 of what has B is split; None: the images' one device.
    """

    prompt: Prompt
    keys: jax.Array
    banned: jax.Array | None
    min_new_tokens: jax.Array
    written: Samples | Beams
    cache: KeyValue
    step: jax.Array
    sharding: NamedSharding | None


def prefill(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    image: jax.Array | np.ndarray,
    prompt: jax.Array | np.ndarray,
    length: jax.Array | np.ndarray,
    *,
    sampler: Sampler = Greedy(),  # noqa: B008 (frozen)
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
      image: float32[B, S, S, 3] in [-1, 1] or uint8[B, S, S, 3]. If it is split over devices along
        axis 0, so is all that is computed.
      prompt: int32[B, L], padded on the right; see `pad_prompts`. L is a shape: compiled for.
      length: int32[B], tokens of each prompt.
      sampler: `Greedy`, `Sample`, `BestOf` or `Beam`.
      max_new_tokens: M, room for tokens, EOS included.
      min_new_tokens: how many tokens must come before EOS may.
      banned_tokens: ids that must never come. Log-probabilities are those without a ban.
      keys: key[B], needed by samplers that draw; see `image_keys`.
      cache_dtype: type of keys and values kept; None: `config.dtype`.

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
    read, hidden = _read(config, cache_dtype, sharding, params, image, prompt, length)
    written, cache, step = _begin(
        config, sampler, max_new_tokens, sharding,
        params, read, hidden, keys, banned, min_new_tokens,
    )  # fmt: skip
    minimum = jnp.int32(min_new_tokens)
    return State(read, keys, banned, minimum, written, cache, step, sharding)


def extend(config: PaliGemmaConfig, params: dict[str, Any], state: State, k: int) -> State:
    """Adds at most k tokens to every row; stops as soon as all images are done."""
    written, cache, step = _extend(config, params, state, k)
    return dataclasses.replace(state, written=written, cache=cache, step=step)


@jax.jit
def _finished(state: State) -> jax.Array:
    return jnp.all(state.written.done()) | (state.step >= state.written.tokens.shape[2])


def finished(state: State) -> bool:
    """Whether all rows have ended or are full, so that `extend` would add nothing."""
    return bool(_finished(state))


@jax.jit
def hypotheses(state: State) -> Hypotheses:
    """Captions of each image, best first; `Beam` knows only those that have ended."""
    return everywhere(state.sharding, state.written.hypotheses())


@jax.jit
def tokens_so_far(state: State) -> jax.Array:
    """int32[B, M]: of each image the row to show, PAD where nothing is written yet."""
    return everywhere(state.sharding, state.written.leading())


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _read(
    config: PaliGemmaConfig,
    cache_dtype: str,
    sharding: NamedSharding | None,
    params: dict[str, Any],
    image: jax.Array,
    text: jax.Array,
    length: jax.Array,
) -> tuple[Prompt, jax.Array]:
    prompt, hidden = read_prompt(config, params, image, text, length, cache_dtype)
    prompt = Prompt(split_rows(sharding, prompt.cache, 1), split_rows(sharding, prompt.length))
    return prompt, split_rows(sharding, hidden)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _begin(
    config: PaliGemmaConfig,
    sampler: Sampler,
    max_new_tokens: int,
    sharding: NamedSharding | None,
    params: dict[str, Any],
    prompt: Prompt,
    hidden: jax.Array,
    keys: jax.Array,
    banned: jax.Array | None,
    min_new_tokens: jax.Array,
) -> tuple[Samples | Beams, KeyValue, jax.Array]:
    written: Samples | Beams
    if isinstance(sampler, Beam):
        written = Beams.empty(sampler, len(hidden), max_new_tokens)
    else:
        written = Samples.empty(sampler, len(hidden), max_new_tokens)
    # The last token that fits is chosen and never read.
    cache = empty_cache(prompt, len(hidden) * sampler.rows, max(1, max_new_tokens - 1))
    cache = split_rows(sharding, cache, 1)
    step = jnp.zeros((), jnp.int32)
    state = State(prompt, keys, banned, min_new_tokens, written, cache, step, sharding)
    written, _ = _choose(config, params, state, hidden)
    return written, cache, step + 1


@functools.partial(jax.jit, static_argnums=0)
def _extend(
    config: PaliGemmaConfig, params: dict[str, Any], state: State, k: jax.Array
) -> tuple[Samples | Beams, KeyValue, jax.Array]:
    end = state.step + k

    def proceed(state: State) -> jax.Array:
        return (state.step < end) & ~_finished(state)

    def add_token(state: State) -> State:
        step = state.step
        token = state.written.tokens[:, :, step - 1].reshape(-1)
        hidden, cache = read_token(config, params, state.prompt, state.cache, token, step - 1)
        written, parent = _choose(config, params, state, hidden)
        if parent is not None:
            cache = reorder(cache, parent)
        cache = split_rows(state.sharding, cache, 1)
        return dataclasses.replace(state, written=written, cache=cache, step=step + 1)

    state = jax.lax.while_loop(proceed, add_token, state)
    return state.written, state.cache, state.step


def _choose(
    config: PaliGemmaConfig, params: dict[str, Any], state: State, hidden: jax.Array
) -> tuple[Samples | Beams, jax.Array | None]:
    """Adds a token to every row, chosen from the logits of what it read last."""
    parts = weight_parts(state.sharding)
    logits = vocabulary.logits(config, params["llm"], hidden, parts=parts)
    logits = logits.reshape(len(state.keys), -1, logits.shape[-1])
    allowed = logits if state.banned is None else jnp.where(state.banned, -jnp.inf, logits)
    eos = jnp.where(state.step < state.min_new_tokens, -jnp.inf, allowed[..., EOS])
    allowed = allowed.at[..., EOS].set(eos)
    choice = Choice(logits, allowed, state.step, state.keys)
    written, parent = state.written.advance(choice)
    return split_rows(state.sharding, written), parent


def _banned(tokens: Iterable[int], vocab_size: int, sampler: Sampler) -> jax.Array | None:
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
