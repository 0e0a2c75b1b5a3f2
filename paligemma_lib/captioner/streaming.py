"""Captions all images of a source, batch by batch.

    for result in stream(config, params, tokenizer, source, batch_size=8):
        print(result.image_id, result)

Images are read and decoded as in training, one batch ahead of the model, so at most two batches are
in memory. With several processes, each process reads its own share of a batch. Then the processes
all-gather what they have read and compute the batch together, and each of them gets all captions.
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
from paligemma_lib.decode.loop import MAX_TOKENS, check_sampler
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.bounds import whole
from paligemma_lib.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Captioned:
    """An image with its caption.

    Attributes:
      number: index of the record in its source.
      image_id: name of the image in its source.
      references: human captions of the image; empty if the source has none.
      caption: the generated caption.
      adapter: name of the adapter with which the model wrote it; None: of no adapter with a name.
    """

    number: int
    image_id: str
    references: tuple[str, ...]
    caption: Caption
    adapter: str | None = None

    @property
    def text(self) -> str:
        """Text of the generated caption."""
        return self.caption.text

    def __str__(self) -> str:
        return self.caption.text


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An image that could not be read or decoded.

    Attributes:
      where: file and place of the record.
      problem: message of the error.
    """

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
    apply_exif: bool = True,
) -> Iterator[Captioned | Skipped]:
    """Yields a result for each image, in the order of the source.

    An image that cannot be read or decoded does not end the stream: it yields a `Skipped`. So does
    one whose own prefix cannot be encoded.

    Args:
      config, params, tokenizer: the model.
      source: images; where a record has a prefix, it replaces `prompt`.
      prompt, sampler, max_new_tokens: as for `pg.decode.generate`.
      batch_size: images in a batch, over all processes.
      seed: seed of samplers that draw at random, 0 or more.
      count: number of images to caption, from the first, at least 1; None: all.
      apply_exif: whether to turn images upright by their EXIF orientation.

    Yields:
      `Captioned` or `Skipped`.

    Raises:
      ValueError: an argument is out of range, at once; or, while captions are written, the model's
        logits are NaN or infinite.
    """
    batch_size = whole("stream: batch_size", batch_size, 1)
    max_new_tokens = whole("stream: max_new_tokens", max_new_tokens, 1, MAX_TOKENS)
    seed = whole("stream: seed", seed, 0, 2**63 - 1)
    count = None if count is None else whole("stream: count", count, 1)
    check_sampler("stream", sampler)
    tokenizer.encode_prefix(prompt)  # a prompt that cannot be encoded is an error now, not later
    # A generator would check nothing before its first result is asked for.
    return _results(
        config,
        params,
        tokenizer,
        source,
        prompt=prompt,
        sampler=sampler,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        seed=seed,
        count=count,
        apply_exif=apply_exif,
    )


def _results(
    config: PaliGemmaConfig,
    params: dict[str, Any],
    tokenizer: Tokenizer,
    source: Source,
    *,
    prompt: str,
    sampler: Strategy,
    batch_size: int,
    max_new_tokens: int,
    seed: int,
    count: int | None,
    apply_exif: bool,
) -> Iterator[Captioned | Skipped]:
    size = config.vision.image_size
    total = len(source) if count is None else min(count, len(source))
    rows = min(batch_size, total)
    # Each process reads a contiguous share of a batch, rounded up; the last processes may have
    # fewer rows or none. 8 rows over 3 processes: [0 1 2] [3 4 5] [6 7]. Every gap is at the end,
    # so the shares joined in process order are the batch, then padding.
    share = -(-rows // jax.process_count())
    mine = range(share * jax.process_index(), share * (jax.process_index() + 1))
    load = functools.partial(_load, source, tokenizer, size, apply_exif)
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def begin(start: int) -> list[Future[tuple[dict[str, Any], np.ndarray | None]]]:
            numbers = range(start, min(start + rows, total))[mine.start : mine.stop]
            return [pool.submit(load, number) for number in numbers]

        # Threads read and decode the next batch while the model captions the current one.
        ahead = begin(0)
        for start in range(0, total, max(rows, 1)):
            loaded = [job.result() for job in ahead]
            ahead = begin(start + rows)
            # Every batch has the same shape, also the last, so that the model is compiled once.
            # Rows without a readable image stay zero, and their captions are not used.
            pixels = np.zeros((share, size, size, 3), np.float32)
            for row, (_, decoded) in zip(pixels, loaded, strict=False):
                if decoded is not None:
                    row[...] = decoded
            # Each process has read its own share only. The records' text is gathered as JSON and
            # the pixels as arrays; then all processes compute the same batch.
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


def _load(
    source: Source, tokenizer: Tokenizer, size: int, apply_exif: bool, number: int
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Returns what JSON can hold of a record, or of its error, and its float32[S, S, 3] pixels.

    The first is gathered to all processes. The pixels are None after an error.
    """
    try:
        (record,) = source.read([number])
        tokenizer.encode_prefix(record.prefix or "")
        told = {
            "image_id": record.image_id,
            "references": record.captions,
            "prefix": record.prefix,
        }
        return told, decode_image(record.image, size, apply_exif=apply_exif)
    except (ValueError, OSError) as error:
        where = source.where(number)
        return {"where": where, "problem": str(error).removeprefix(f"{where}: ")}, None
