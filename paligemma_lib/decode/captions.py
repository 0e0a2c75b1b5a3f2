"""Generates captions for any number of images, in batches, on one device or many.

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
from paligemma_lib.decode.loop import check_sampler, checked_lengths, extend, hypotheses, prefill
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.decode.prompt import pad_prompts
from paligemma_lib.decode.samplers import Greedy, image_keys
from paligemma_lib.decode.samples import Hypotheses, check_finite
from paligemma_lib.model.inputs import check_images
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.bounds import whole
from paligemma_lib.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Caption:
    """A generated caption of one image.

    Attributes:
      text: the caption as text.
      tokens: token ids, with EOS at the end unless the caption was cut off at `max_new_tokens`.
      logprobs: log-probability of each token in nats, from the model's logits before temperature,
        top-k, top-p and banned tokens.
      score: sum of `logprobs`; `Beam` applies its length penalty to it.
      alternatives: the other captions that `BestOf` or `Beam` found, best first.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float
    alternatives: tuple["Caption", ...] = ()

    @property
    def probability(self) -> float:
        """Probability of the whole caption under the model."""
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
    """Generates a caption for each image.

    The caption of an image depends only on its pixels, its prompt, its number and the key. It does
    not depend on the other images, the batch size or the number of devices. (These change the order
    of summation, so a tie within rounding errors may be decided differently.)

    The programs are compiled once for each config, sampler, `max_new_tokens`, batch size and length
    of the longest prompt. Images on a mesh keep their sharding. Otherwise, if the parameters are on
    a mesh, images are split over the axes of that mesh that no parameter is split over. With
    several processes, every process passes all images.

    Args:
      config: the model.
      params: its parameters, see `model.init`; on one device or many, with any sharding.
      images: float32[N, S, S, 3] in [-1, 1], or uint8[N, S, S, 3].
      tokenizer: tokenizer of the model.
      prompt: one prompt for all images, or one for each.
      sampler: `Greedy`, `Sample`, `BestOf`, `Beam`, or a `Sampler` of your own.
      max_new_tokens: largest number of tokens of a caption, including EOS.
      min_new_tokens: number of tokens that must precede EOS.
      banned_tokens: token ids that are never chosen.
      batch_size: images in a batch; None: all. The last batch is padded to this size.
      key: random key for `Sample` and `BestOf`.
      first_number: number of the first image, to caption a data set in several calls.
      cache_dtype: dtype of the key/value cache; None: `config.dtype`.

    Raises:
      ValueError: the arguments do not fit together, or one is out of range.
      NotFinite: the model's logits for an image are NaN or infinite; it is a ValueError.
    """
    if not isinstance(images, jax.Array):
        images = np.asarray(images)
    check_images("generate", images, config.vision.image_size, wait=True)
    count = len(images)
    check_sampler("generate", sampler)
    if isinstance(prompt, str):
        prompt = [prompt] * count
    if not isinstance(prompt, Sequence):
        raise ValueError(f"generate: prompt={prompt!r:.60}, expected a text, or one for each image")
    if len(prompt) != count:
        raise ValueError(f"generate: {len(prompt)} prompts for {count} images")
    if batch_size is not None:
        batch_size = whole("generate: batch_size", batch_size, 1)
    first_number = whole("generate: first_number", first_number, 0)
    min_new_tokens, max_new_tokens = checked_lengths("generate", min_new_tokens, max_new_tokens)
    if sampler.random and key is None:
        raise ValueError(f"generate: {sampler} draws at random: pass key=jax.random.key(0)")
    tokenizer.check_fits(config.language.vocab_size)
    if count == 0:
        return []

    text, length = pad_prompts([tokenizer.encode_prefix(each) for each in prompt])
    sharding = images_sharding(images, params)
    shards = num_shards(sharding)
    # The batch size is rounded up to a multiple of the shards: 10 images on 4 shards make 12 rows.
    size = -(-min(batch_size or count, count) // shards) * shards
    banned_tokens = tuple(banned_tokens)
    captions: list[Caption] = []
    for start in range(0, count, size):
        # Every batch has the same size, so that programs are compiled once. The last batch repeats
        # its last image: with count = 6 and size = 4, rows are [0 1 2 3], then [4 5 5 5].
        rows = np.minimum(np.arange(start, start + size), count - 1)
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
        real = Hypotheses(*(part[: count - start] for part in jax.device_get(found)))
        captions += captions_from(real, tokenizer, first_number + start)
    return captions


def captions_from(found: Hypotheses, tokenizer: Tokenizer, first_number: int = 0) -> list[Caption]:
    """Returns the best caption of each image, with the others as its `alternatives`.

    Args:
      found: NumPy arrays.
      tokenizer: tokenizer of the model.
      first_number: number of the first image, for messages.

    Raises:
      NotFinite: the model's logits for an image were NaN or infinite.
    """
    check_finite(first_number + np.flatnonzero(np.isnan(found.score).any(axis=1)))
    captions = []
    for image in zip(*found, strict=True):
        # Samples of an image may be equal. `setdefault` keeps the first of them, so each caption is
        # listed once, and the order (best first) stays.
        distinct: dict[tuple[int, ...], Caption] = {}
        for tokens, logprobs, score in zip(*(part.tolist() for part in image), strict=True):
            if score == -math.inf:  # an empty slot: beam search ended fewer than N captions
                continue
            length = tokens.index(EOS) + 1 if EOS in tokens else len(tokens)
            ids = tuple(tokens[:length])
            text = tokenizer.decode(ids).strip()
            distinct.setdefault(ids, Caption(text, ids, tuple(logprobs[:length]), score))
        best, *others = distinct.values()
        captions.append(dataclasses.replace(best, alternatives=tuple(others)))
    return captions
