"""A model with all that it takes to caption pictures: from a checkpoint, for any source.

    captioner = load("paligemma-3b-pt-224.f16.npz")
    for result in captioner.caption(pg.data.from_pictures(["Images"]), sampler=Beam(4)):
        print(result.image_id, result.caption.text)

Pictures are read and decoded as in training, a batch ahead of the model; no more than two batches
are in memory.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from paligemma_lib import hub, tokenizer
from paligemma_lib.checkpoint import load_params, read_config
from paligemma_lib.data.image import decode_image
from paligemma_lib.data.sources import Record, Source
from paligemma_lib.decode import Caption, Greedy, generate
from paligemma_lib.decode.loop import Sampler
from paligemma_lib.model import abstract_params
from paligemma_lib.model.config import PaliGemmaConfig
from paligemma_lib.sharding import make_mesh, param_shardings
from paligemma_lib.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Captioned:
    """A picture with its caption.

    Attributes:
      number: of the record in its source.
      image_id: what the source calls the picture.
      references: captions by people, if the source has any.
      caption: the generated one.
    """

    number: int
    image_id: str
    references: tuple[str, ...]
    caption: Caption


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A picture that could not be read or decoded: where it lies, and why."""

    where: str
    problem: str


@dataclasses.dataclass(frozen=True)
class Captioner:
    """A model with all that it takes to write captions."""

    config: PaliGemmaConfig
    params: dict[str, Any]
    tokenizer: Tokenizer

    def caption(
        self,
        source: Source,
        *,
        prompt: str = "caption en",
        sampler: Sampler = Greedy(),  # noqa: B008 (frozen)
        batch_size: int = 8,
        max_new_tokens: int = 64,
        seed: int = 0,
        count: int | None = None,
    ) -> Iterator[Captioned | Skipped]:
        """Captions all pictures, in the order of the source.

        Pictures that cannot be read or decoded are skipped, and said to be.

        Args:
          source: a record's own prefix counts instead of `prompt`.
          prompt, sampler, max_new_tokens: as for `pg.decode.generate`.
          batch_size: pictures at a time.
          seed: for samplers that draw at random.
          count: only the first so many pictures; None: all.
        """
        size = self.config.vision.image_size
        total = len(source) if count is None else min(count, len(source))
        rows = min(batch_size, total)
        load = functools.partial(_load, source, size)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead = [pool.submit(load, number) for number in range(rows)]
            for start in range(0, total, max(rows, 1)):
                loaded = [job.result() for job in ahead]
                following = range(start + rows, min(start + 2 * rows, total))
                ahead = [pool.submit(load, number) for number in following]
                # Always as many rows, so that the model is compiled once.
                images = np.zeros((rows, size, size, 3), np.float32)
                prompts = [prompt] * rows
                for row, each in enumerate(loaded):
                    if isinstance(each, _Loaded):
                        images[row], prompts[row] = each.pixels, each.record.prefix or prompt
                captions = generate(
                    self.config,
                    self.params,
                    images,
                    self.tokenizer,
                    prompt=prompts,
                    sampler=sampler,
                    max_new_tokens=max_new_tokens,
                    key=jax.random.key(seed),
                    first_number=start,
                )
                for number, (each, caption) in enumerate(
                    zip(loaded, captions, strict=False), start
                ):
                    if isinstance(each, _Loaded):
                        record = each.record
                        yield Captioned(number, record.image_id, record.captions, caption)
                    else:
                        yield each


def load(checkpoint: str, tokenizer_path: str | None = None, dtype: str | None = None) -> Captioner:
    """Loads a model and its tokenizer; with several devices, its parameters are split over them.

    Args:
      checkpoint: as for `checkpoint.load_params`.
      tokenizer_path: a SentencePiece file; None: the one in the checkpoint's folder, or
        PaliGemma's.
      dtype: of parameters and activations, "float32", "bfloat16" or "float16"; None: parameters as
        they are stored, activations in float32.

    Raises:
      FileNotFoundError, ValueError: a file is missing or damaged, or they don't belong together.
    """
    config = read_config(checkpoint)
    if dtype is not None:
        config = dataclasses.replace(config, dtype=dtype)
    path = tokenizer_path or tokenizer_of(checkpoint)
    pieces = tokenizer.load(path, config.language.vocab_size)
    sharding = None
    if jax.device_count() > 1:
        sharding = param_shardings(make_mesh(), abstract_params(config), "tensor")
    params = load_params(checkpoint, config, sharding=sharding, dtype=dtype)
    return Captioner(config, params, pieces)


def tokenizer_of(checkpoint: str) -> Path:
    """The tokenizer in a checkpoint's folder, or else PaliGemma's, which is fetched."""
    place = Path(checkpoint)
    beside = (place if place.is_dir() else place.parent) / "tokenizer.model"
    return beside if beside.is_file() else hub.fetch_tokenizer()


@dataclasses.dataclass(frozen=True)
class _Loaded:
    record: Record
    pixels: np.ndarray


def _load(source: Source, size: int, number: int) -> _Loaded | Skipped:
    try:
        (record,) = source.read([number])
        return _Loaded(record, decode_image(record.image, size))
    except (ValueError, OSError) as error:
        return Skipped(source.where(number), str(error))
