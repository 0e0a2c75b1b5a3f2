"""Captions of all images of a source, some at a time.

    for result in stream(config, params, tokenizer, source, batch_size=8):
        print(result.image_id, result)

Images are read and decoded as in training, a batch ahead of the model; no more than two batches
are in memory. With several processes, each reads its own share of a batch, then they exchange what
they have read, write captions together, and all get all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from paligemma_lib.data.image import decode_image
from paligemma_lib.data.sources import Source
from paligemma_lib.decode import Caption, Greedy, generate
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime import processes
from paligemma_lib.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Captioned:
    """An image with its caption.

    Attributes:
      number: of the record in its source.
      image_id: what the source calls the image.
      references: captions by people, if the source has any.
      caption: the generated one.
    """

    number: int
    image_id: str
    references: tuple[str, ...]
    caption: Caption

    @property
    def text(self) -> str:
        """Of the caption."""
        return self.caption.text

    def __str__(self) -> str:
        return self.caption.text


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An image that could not be read or decoded: where it lies, and why."""

    where: str
    problem: str


def stream(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    tokenizer: Tokenizer,
    source: Source,
    *,
    prompt: str = "caption en",
    sampler: Strategy = Greedy(),  # noqa: B008 (frozen)
    batch_size: int = 8,
    max_new_tokens: int = 64,
    seed: int = 0,
    count: int | None = None,
) -> Iterator[Captioned | Skipped]:
    """Captions all images, in the order of the source.

    Images that cannot be read or decoded are skipped, and said to be.

    Args:
      config, params, tokenizer: the model.
      source: a record's own prefix counts instead of `prompt`.
      prompt, sampler, max_new_tokens: as for `pg.decode.generate`.
      batch_size: images at a time, over all processes.
      seed: for samplers that draw at random.
      count: only the first so many images; None: all.
    """
    size = config.vision.image_size
    total = len(source) if count is None else min(count, len(source))
    rows = min(batch_size, total)
    share = -(-rows // jax.process_count())  # the last processes may have less, or nothing
    mine = range(share * jax.process_index(), share * (jax.process_index() + 1))
    load = functools.partial(_load, source, size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def begin(start: int) -> list[Future[tuple[dict[str, Any], np.ndarray | None]]]:
            numbers = range(start, min(start + rows, total))[mine.start : mine.stop]
            return [pool.submit(load, number) for number in numbers]

        # While the model writes captions of one batch, threads read and decode the next.
        ahead = begin(0)
        for start in range(0, total, max(rows, 1)):
            loaded = [job.result() for job in ahead]
            ahead = begin(start + rows)
            # Always as many rows, so that the model is compiled once.
            pixels = np.zeros((share, size, size, 3), np.float32)
            for row, (_, decoded) in zip(pixels, loaded, strict=False):
                if decoded is not None:
                    row[...] = decoded
            # Each process has read its own share. What is said of images goes to all as JSON,
            # pixels as arrays, and then all compute the same batch.
            texts = processes.gather(json.dumps([told for told, _ in loaded]).encode())
            told = [each for text in texts for each in json.loads(text)]
            prompts = [each.get("prefix") or prompt for each in told]
            captions = generate(
                config,
                params,
                processes.gather_rows(pixels)[:rows],
                tokenizer,
                prompt=prompts + [prompt] * (rows - len(prompts)),
                sampler=sampler,
                max_new_tokens=max_new_tokens,
                key=jax.random.key(seed),
                first_number=start,
            )
            for number, (each, caption) in enumerate(zip(told, captions, strict=False), start):
                if "problem" in each:
                    yield Skipped(**each)
                else:
                    references = tuple(each["references"])
                    yield Captioned(number, each["image_id"], references, caption)


def _load(source: Source, size: int, number: int) -> tuple[dict[str, Any], np.ndarray | None]:
    """What is said of an image, which all processes get to know, and float32[S, S, 3] of it."""
    try:
        (record,) = source.read([number])
        told = {
            "image_id": record.image_id,
            "references": record.captions,
            "prefix": record.prefix,
        }
        return told, decode_image(record.image, size)
    except (ValueError, OSError) as error:
        return {"where": source.where(number), "problem": str(error)}, None
