"""Captions for any number of images: batches, prompts, devices, and text for people.

captions = generate(config, params, images, tokenizer, prompt="caption en", sampler=Beam(4))
print(captions[0].text, captions[0].score, [other.text for other in captions[0].alternatives])
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from paligemma_lib.batch import EOS
from paligemma_lib.decode.devices import images_sharding, num_shards, place
from paligemma_lib.decode.loop import extend, hypotheses, prefill
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.decode.prompt import pad_prompts
from paligemma_lib.decode.samplers import Greedy, image_keys
from paligemma_lib.decode.samples import Hypotheses
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Caption:
    """A caption of one image.

    Attributes:
      text: for people.
      tokens: ids, with EOS at the end if the model ended it.
      logprobs: the model's own log-probability of each token, in nats; neither temperature nor
        banned tokens change it.
      score: sum of `logprobs`; of `Beam`, with its length penalty.
      alternatives: the other captions that `BestOf` or `Beam` found, best first.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float
    alternatives: tuple["Caption", ...] = ()

    @property
    def probability(self) -> float:
        """Of the whole caption, as the model sees it."""
        return math.exp(sum(self.logprobs))


def generate(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    images: np.ndarray | jax.Array,
    tokenizer: Tokenizer,
    *,
    prompt: str | Sequence[str] = "caption en",
    sampler: Strategy = Greedy(),  # noqa: B008 (frozen)
    max_new_tokens: int = 64,
    min_new_tokens: int = 0,
    banned_tokens: Iterable[int] = (),
    batch_size: int | None = None,
    key: jax.Array | None = None,
    first_number: int = 0,
    cache_dtype: str | None = None,
) -> list[Caption]:
    """Writes a caption for each image.

    The caption of an image depends on its pixels, its prompt, its number and the key; not on its
    neighbours, nor on how many fit in a batch or on how many devices compute. (Sums are done in
    another order there, so a tie within rounding may fall another way.)

    Compiled once for each config, sampler, `max_new_tokens`, batch size and longest prompt. With
    parameters on a mesh, images are split over those of its axes that no parameter is split over;
    with images on a mesh, as they are. With several processes, all pass the same images.

    Args:
      config: the model.
      params: its parameters, see `model.init`; on one device or many, split in any way.
      images: float32[N, S, S, 3] in [-1, 1], or uint8[N, S, S, 3].
      tokenizer: the model's.
      prompt: one for all images, or one for each.
      sampler: `Greedy`, `Sample`, `BestOf`, `Beam`, or a `Sampler` of one's own.
      max_new_tokens: where to stop a caption that does not end, EOS counted.
      min_new_tokens: how many tokens must come before EOS may.
      banned_tokens: ids that must never come.
      batch_size: images at a time; None: all. The last batch is filled up and cut back.
      key: where the randomness of `Sample` and `BestOf` comes from.
      first_number: the number of the first image, where a set is captioned in several calls.
      cache_dtype: type in which keys and values are kept; None: `config.dtype`.

    Raises:
      ValueError: an argument does not fit the others.
    """
    if not isinstance(images, jax.Array):
        images = np.asarray(images)
    count = len(images)
    if isinstance(prompt, str):
        prompt = [prompt] * count
    if len(prompt) != count:
        raise ValueError(f"generate: {len(prompt)} prompts for {count} images")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"generate: batch_size={batch_size}, expected at least 1")
    if sampler.random and key is None:
        raise ValueError(f"generate: {sampler} draws at random: give it key=jax.random.key(0)")
    tokenizer.check_fits(config.language.vocab_size)
    if count == 0:
        return []

    text, length = pad_prompts([tokenizer.encode_prefix(each) for each in prompt])
    sharding = images_sharding(images, params)
    shards = num_shards(sharding)
    size = -(-min(batch_size or count, count) // shards) * shards
    banned_tokens = tuple(banned_tokens)
    captions: list[Caption] = []
    for start in range(0, count, size):
        # Always batches of one size, which are compiled once; the last is filled up with its last
        # image.
        rows = np.minimum(np.arange(start, start + size), count - 1)  # the last one fills up
        image = images if size == count else images[rows]
        if sharding is not None:
            image = place(image, sharding)
        state = prefill(
            config,
            params,
            image,
            text[rows],
            length[rows],
            sampler=sampler,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            banned_tokens=banned_tokens,
            keys=image_keys(jax.random.key(0) if key is None else key, first_number + rows),
            cache_dtype=cache_dtype,
        )
        found = hypotheses(extend(config, params, state, max_new_tokens))
        captions += captions_from(jax.device_get(found), tokenizer)[: count - start]
    return captions


def captions_from(found: Hypotheses, tokenizer: Tokenizer) -> list[Caption]:
    """Of each image the best caption, which knows the others."""
    captions = []
    for image in zip(*found, strict=True):
        # Samples of an image may be equal; each caption is listed once, with its first score.
        distinct: dict[tuple[int, ...], Caption] = {}
        for tokens, logprobs, score in zip(*(part.tolist() for part in image), strict=True):
            if score == -math.inf:
                continue
            length = tokens.index(EOS) + 1 if EOS in tokens else len(tokens)
            ids = tuple(tokens[:length])
            text = tokenizer.decode(ids).strip()
            distinct.setdefault(ids, Caption(text, ids, tuple(logprobs[:length]), score))
        best, *others = distinct.values()
        captions.append(dataclasses.replace(best, alternatives=tuple(others)))
    return captions
