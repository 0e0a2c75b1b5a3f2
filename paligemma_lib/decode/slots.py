"""Captions images in slots, with programs of fixed sizes: each enters and leaves between tokens.

    slots = empty(config, params, Beam(4), count=8, prompt_tokens=64, max_new_tokens=64)
    slots = enter(config, params, slots, 3, prompt, hidden, key, limit, settings)
    slots, seen = advance(config, params, slots, 4)
    if seen.complete[3]:
        caption = seen.found                                 # index 3 of each of its arrays
    slots = leave(slots, where)

Each slot is at its own step. Products with weights have the rows of all slots, so that a token
takes hardly longer than for one. Yet no slot can see another: a caption does not depend, not even
in its last bit, on what the other slots do.

The slots' arrays are donated: after `enter`, `advance` and `leave`, the old ones must not be used.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from paligemma_lib.decode.adjustable import AXIS, Adjustable, Settings
from paligemma_lib.decode.beam import Beams
from paligemma_lib.decode.devices import replicate
from paligemma_lib.decode.programs import row_logits
from paligemma_lib.decode.prompt import Prompt, empty_cache, read_token, reorder
from paligemma_lib.decode.samples import Choice, Samples
from paligemma_lib.decode.slot_arrays import Seen as Seen
from paligemma_lib.decode.slot_arrays import Slots, unwritten
from paligemma_lib.decode.slot_arrays import empty as empty
from paligemma_lib.model.variants import PaliGemmaConfig


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def enter(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    slots: Slots,
    number: jax.Array,
    prompt: Prompt,
    hidden: jax.Array,
    key: jax.Array,
    limit: jax.Array,
    settings: Settings,
) -> Slots:
    """Puts an image into a slot, and chooses the first token of each of its rows.

    Args:
      config, params: the model.
      slots: the slots, which are donated.
      number: int32[], the slot, whose former image is forgotten.
      prompt: keys and values of the image and its prompt, of `read_inputs` with one image.
      hidden: dtype[1, D], from there, too.
      key: key[1], the random key of the image.
      limit: int32[], its `max_new_tokens`.
      settings: its settings, arrays of one.
    """
    strategy, max_new_tokens = slots.written.sampler, slots.written.tokens.shape[-1]
    written = unwritten(strategy, 1, max_new_tokens, settings.row)
    logits = row_logits(config, params, slots.sharding, hidden, 1)
    written, _ = _choose(written, logits, jnp.zeros(1, jnp.int32), key, settings)
    # Zeros beyond the prompt, and in the whole cache of new tokens: what an earlier image has left
    # there may be NaN, which a weight of 0 does not undo.
    missing = slots.prompt.cache[0].shape[2] - prompt.cache[0].shape[2]
    padding = ((0, 0), (0, 0), (0, missing), (0, 0), (0, 0))
    read = tuple(jnp.pad(part, padding).astype(config.dtype) for part in prompt.cache)
    cache = empty_cache(prompt, strategy.rows, slots.cache[0].shape[2])

    def put(many: jax.Array, new: jax.Array, axis: int = 0) -> jax.Array:
        first = number * new.shape[axis]
        return jax.lax.dynamic_update_slice_in_dim(many, new.astype(many.dtype), first, axis)

    in_layers = functools.partial(put, axis=1)
    slots = Slots(
        Prompt(
            jax.tree.map(in_layers, slots.prompt.cache, read),
            put(slots.prompt.length, prompt.length),
        ),
        jax.tree.map(in_layers, slots.cache, cache),
        slots.keys.at[number].set(key[0]),
        jax.tree.map(put, slots.written, written),
        slots.step.at[number].set(1),
        slots.limit.at[number].set(limit),
        jax.tree.map(put, slots.settings, settings),
        slots.occupied.at[number].set(True),
        slots.sharding,
    )
    return replicate(slots.sharding, slots)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def advance(
    config: PaliGemmaConfig, params: dict[str, Any], slots: Slots, k: jax.Array
) -> tuple[Slots, Seen]:
    """Adds up to k tokens to all slots; stops as soon as a caption is complete.

    Args:
      config, params: the model.
      slots: the slots, which are donated.
      k: int32[], the largest number of tokens to add.
    """

    def proceed(carry: tuple[Slots, jax.Array]) -> jax.Array:
        slots, left = carry
        return (left > 0) & jnp.any(slots.occupied) & ~jnp.any(_complete(slots))

    def add(carry: tuple[Slots, jax.Array]) -> tuple[Slots, jax.Array]:
        slots, left = carry
        last = (slots.step - 1)[:, None, None]
        token = jnp.take_along_axis(slots.written.tokens, last, axis=2).reshape(-1)
        step = jnp.repeat(slots.step - 1, slots.written.sampler.rows)
        hidden, cache = read_token(config, params, slots.prompt, slots.cache, token, step)
        logits = row_logits(config, params, slots.sharding, hidden, len(slots.step))
        written, parent = _choose(slots.written, logits, slots.step, slots.keys, slots.settings)
        if parent is not None:
            cache = reorder(cache, parent)
        # A slot without an image is computed with the others. It stays at its step.
        step = slots.step + slots.occupied
        slots = dataclasses.replace(slots, cache=cache, written=written, step=step)
        return replicate(slots.sharding, slots), left - 1

    slots, _ = jax.lax.while_loop(proceed, add, (slots, k))
    written = slots.written
    seen = Seen(
        _complete(slots),
        slots.occupied & written.broken,
        slots.step,
        written.leading(),
        written.hypotheses(),
    )
    return slots, replicate(slots.sharding, seen)


@functools.partial(jax.jit, donate_argnums=0)
def leave(slots: Slots, where: jax.Array) -> Slots:
    """Empties the slots that bool[B] `where` marks."""
    return dataclasses.replace(slots, occupied=slots.occupied & ~where)


def _complete(slots: Slots) -> jax.Array:
    return slots.occupied & (slots.written.done() | (slots.step >= slots.limit))


def _choose(
    written: Samples | Beams,
    logits: jax.Array,
    step: jax.Array,
    keys: jax.Array,
    settings: Settings,
) -> tuple[Samples | Beams, jax.Array | None]:
    """Adds a token to every row of every image, each at its own step, as `choose_token` does."""
    plain = written.sampler

    def of_image(
        written: Samples | Beams,
        logits: jax.Array,
        step: jax.Array,
        key: jax.Array,
        settings: Settings,
    ) -> tuple[Samples | Beams, jax.Array | None]:
        if isinstance(plain, Adjustable):
            assert isinstance(written, Samples)
            written = dataclasses.replace(written, sampler=plain.at(settings))
        one = jax.tree.map(lambda leaf: leaf[None], written)
        one, parent = one.advance(Choice(logits[None], logits[None], step, key[None]))
        # Settings that are traced stay inside: outside of here, the sampler is a constant.
        one = dataclasses.replace(one, sampler=plain)
        return jax.tree.map(lambda leaf: leaf[0], (one, parent))

    return jax.vmap(of_image, axis_name=AXIS)(written, logits, step, keys, settings)
