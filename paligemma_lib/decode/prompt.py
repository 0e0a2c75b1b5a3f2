"""Runs the model for decoding: image and prompt once, then one token of each row at a time.

    prompt, hidden = read_prompt(config, params, image, text, length, "bfloat16")
    cache = empty_cache(prompt, rows=4 * len(image), capacity=20)
    hidden, cache = read_token(config, params, prompt, cache, token, step=1)

Keys and values of image and prompt are stored once per image. R successive rows (beams or samples
of that image) attend to them. Each row also attends to its own cache, which holds only new tokens.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib.batch import PAD
from paligemma_lib.model import gemma, siglip, vocabulary
from paligemma_lib.model.gemma import KeyValue
from paligemma_lib.model.sight import Sight
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.bounds import whole


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompt:
    """Keys and values of images and prompts.

    Attributes:
      cache: keys and values, dtype[depth, B, P + L, K, H] each.
      length: int32[B], number of tokens of image and prompt; positions from there on are padding.
    """

    cache: KeyValue
    length: jax.Array


def pad_prompts(prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Pads prompts of different lengths on the right and stacks them.

    Args:
      prompts: token ids, as `Tokenizer.encode_prefix` returns them.

    Returns:
      int32[B, L] tokens, where L is the length of the longest prompt, and int32[B] lengths.

    Raises:
      ValueError: there is no prompt, a prompt has no tokens, or one of them is no token id.
    """
    lengths = [len(prompt) for prompt in prompts]
    if not lengths or min(lengths) == 0:
        raise ValueError(
            f"pad_prompts: prompts of {lengths} tokens, expected at least one prompt and one token "
            "in each"
        )
    text = np.full((len(lengths), max(lengths)), PAD, np.int32)
    for row, prompt in zip(text, prompts, strict=True):
        row[: len(prompt)] = [whole("pad_prompts: token", each, 0, 2**31 - 1) for each in prompt]
    return text, np.array(lengths, np.int32)


def read_prompt(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    image: jax.Array,
    text: jax.Array,
    text_length: jax.Array,
    cache_dtype: str,
) -> tuple[Prompt, jax.Array]:
    """Runs the model on images and prompts, with full attention between their tokens.

    Args:
      config: the model.
      params: its parameters, see `model.init`.
      image: float32[B, S, S, 3] in [-1, 1], or uint8[B, S, S, 3].
      text: int32[B, L], padded on the right.
      text_length: int32[B], number of tokens of each prompt.
      cache_dtype: dtype of the key/value cache.

    Returns:
      The keys and values, and dtype[B, D], the hidden state that gives the first token's logits.
    """
    image_tokens = siglip.encode(config, params["img"], image).astype(config.residual_dtype)
    x = jnp.concatenate([image_tokens, vocabulary.embed(config, params["llm"], text)], axis=1)
    index = jnp.arange(x.shape[1], dtype=jnp.int32)
    length = text_length + config.vision.num_tokens
    # Prompts are padded on the right, so the index of the last token differs between rows.
    last, cache = gemma.apply_layers(
        config,
        params["llm"],
        x,
        jnp.broadcast_to(index, x.shape[:2]),
        Sight.of_prefix(length, x.shape[1]),
        read=(length - 1)[:, None],
        keep=lambda _, own: own,
    )
    assert cache is not None
    last = last[:, 0]
    cache = (cache[0].astype(cache_dtype), cache[1].astype(cache_dtype))
    return Prompt(cache, length), gemma.final_norm(config, params["llm"], last)


def empty_cache(prompt: Prompt, rows: int, capacity: int) -> KeyValue:
    """Returns zeros [depth, rows, capacity, K, H] for keys and values of new tokens."""
    depth, _, _, heads, width = prompt.cache[0].shape
    zeros = jnp.zeros((depth, rows, capacity, heads, width), prompt.cache[0].dtype)
    return zeros, zeros


def read_token(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    prompt: Prompt,
    cache: KeyValue,
    token: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, KeyValue]:
    """Runs the model on the newest token of every row.

    Args:
      config: the model.
      params: its parameters, see `model.init`.
      prompt: keys and values of B images and their prompts.
      cache: keys and values of new tokens, [depth, B * R, capacity, K, H], where the first `step`
        entries are filled.
      token: int32[B * R], the newest token of each row.
      step: int32[] or int32[B * R], number of new tokens that each row has read before this one.

    Returns:
      dtype[B * R, D], the hidden state that gives the next token's logits, and the cache with entry
      `step` filled, too.
    """
    steps = jnp.broadcast_to(step, token.shape)
    per_image = len(token) // len(prompt.length)
    # The mask covers three parts of keys, in the order in which `attention` gets them: the prompt
    # without its padding, the filled entries of the row's cache, and the token itself. A prompt of
    # 3 of 4 positions at step 2 of capacity 3: [1 1 1 0 | 1 1 0 | 1].
    seen = jnp.arange(prompt.cache[0].shape[2]) < prompt.length[:, None]
    own = jnp.arange(cache[0].shape[2]) < steps[:, None]
    itself = jnp.ones((len(token), 1), bool)
    mask = jnp.concatenate([jnp.repeat(seen, per_image, axis=0), own, itself], axis=1)
    # Positions continue from the end of this row's prompt, not of the longest one, as in training.
    position = (jnp.repeat(prompt.length, per_image) + steps)[:, None]
    x = vocabulary.embed(config, params["llm"], token[:, None])
    x, new = gemma.apply_layers(
        config,
        params["llm"],
        x,
        position,
        Sight.of_keys(mask),
        (prompt.cache, cache),
        keep=lambda _, own: own,
    )
    assert new is not None
    write = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=2)
    if jnp.ndim(step):  # rows at different steps, as in `slots`
        write = jax.vmap(
            functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1), (1, 1, 0), 1
        )
    keys, values = (
        write(old, part.astype(old.dtype), step) for old, part in zip(cache, new, strict=True)
    )
    return gemma.final_norm(config, params["llm"], x[:, 0]), (keys, values)


def reorder(cache: KeyValue, parent: jax.Array) -> KeyValue:
    """Returns a cache where row r of image b is the old row `parent[b, r]`; parent: int32[B, R]."""
    b, r = parent.shape

    def gather(leaf: jax.Array) -> jax.Array:
        # Only entries of new tokens are copied, [depth, B, R, M - 1, K, H], not those of the
        # prompt. The indices `parent` count rows within an image, hence the axes [B, R].
        split = leaf.reshape(len(leaf), b, r, *leaf.shape[2:])
        rows = jax.vmap(lambda rows, parent: rows[:, parent], in_axes=(1, 0), out_axes=1)
        return rows(split, parent).reshape(leaf.shape)

    return gather(cache[0]), gather(cache[1])
