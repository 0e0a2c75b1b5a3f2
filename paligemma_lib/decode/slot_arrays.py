"""Defines slots, in which images are captioned, and what can be seen of them; see `slots`."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from paligemma_lib.decode.adjustable import Settings
from paligemma_lib.decode.beam import Beam, Beams
from paligemma_lib.decode.devices import images_sharding
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.decode.prompt import Prompt, empty_cache
from paligemma_lib.decode.samples import Hypotheses, Samples
from paligemma_lib.model.gemma import KeyValue
from paligemma_lib.model.variants import PaliGemmaConfig


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        "prompt", "cache", "keys", "written", "step", "limit", "settings", "occupied"
    ),
    meta_fields=("sharding",),
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class Slots:
    """Unfinished captions of up to B images, with R rows each and up to M tokens in a row.

    Attributes:
      prompt, cache, keys, written: as in `State`.
      step: int32[B], tokens that the rows of each image have.
      limit: int32[B], `max_new_tokens` of each, at most M.
      settings: settings of each, for `Adjustable`; other samplers ignore them.
      occupied: bool[B], whether the slot has an image.
      sharding: puts all of it on every device of the parameters' mesh; None: there is no mesh.
    """

    prompt: Prompt
    cache: KeyValue
    keys: jax.Array
    written: Samples | Beams
    step: jax.Array
    limit: jax.Array
    settings: Settings
    occupied: jax.Array
    sharding: NamedSharding | None


class Seen(NamedTuple):
    """What is known of the slots after `advance`.

    Attributes:
      complete: bool[B], occupied slots whose caption is complete.
      broken: bool[B], those of them whose logits were NaN or infinite.
      step: int32[B], tokens so far.
      leading: int32[B, M], the leading row, PAD where no token is written yet.
      found: captions of each slot, [B, N, M]; only those of complete slots are final.
    """

    complete: jax.Array
    broken: jax.Array
    step: jax.Array
    leading: jax.Array
    found: Hypotheses


def empty(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    strategy: Strategy,
    *,
    count: int,
    prompt_tokens: int,
    max_new_tokens: int,
) -> Slots:
    """Returns slots without images.

    Args:
      config: the model.
      params: its parameters; slots are on all devices that hold them.
      strategy: `Adjustable`, any other sampler, or `Beam`.
      count: B, the number of slots.
      prompt_tokens: L, the longest prompt.
      max_new_tokens: M, the longest caption.
    """
    mesh = images_sharding(None, params)
    sharding = None if mesh is None else NamedSharding(mesh.mesh, PartitionSpec())

    @jax.jit
    def make() -> Slots:
        language = config.language
        length = config.vision.num_tokens + prompt_tokens
        shape = (language.depth, count, length, language.num_kv_heads, language.head_dim)
        zeros, ones = jnp.zeros(count, jnp.int32), jnp.ones(count, jnp.int32)
        prompt = Prompt((jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype)), ones)
        return Slots(
            prompt,
            empty_cache(prompt, count * strategy.rows, max(1, max_new_tokens - 1)),
            jax.vmap(jax.random.key)(zeros),
            unwritten(strategy, count, max_new_tokens, zeros),
            ones,
            ones,
            Settings(jnp.zeros(count), jnp.ones(count), zeros),
            jnp.zeros(count, bool),
            sharding,
        )

    # Where the programs put their results. An array that is bound to no device would have them
    # compiled a second time.
    place = sharding or getattr(jax.tree.leaves(params)[0], "sharding", None)
    return make() if place is None else jax.device_put(make(), place)


def unwritten(
    strategy: Strategy, images: int, max_new_tokens: int, first_row: jax.Array
) -> Samples | Beams:
    """Returns rows without tokens; `first_row` counts for samplers that draw at random."""
    if isinstance(strategy, Beam):
        return Beams.empty(strategy, images, max_new_tokens)
    return Samples.empty(strategy, images, max_new_tokens, first_row)
