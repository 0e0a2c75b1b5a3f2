"""A model with all that it takes to caption images: from a checkpoint, for any image.

captioner = load("paligemma-3b-pt-224.f16.npz")
print(captioner.caption("dog.jpg"))                        # or bytes, an array, a list, ...
for result in captioner.stream(pg.data.from_image_files(["Images"]), sampler=Beam(4)):
    print(result.image_id, result)
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast, overload

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from paligemma_lib import hub, tokenizer
from paligemma_lib.captioner.streaming import Captioned, Skipped, stream
from paligemma_lib.checkpoint import load_params, read_config
from paligemma_lib.data.given_images import Image, from_images
from paligemma_lib.data.sources import Source
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.model import abstract_params
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.atomic import is_remote, path_of
from paligemma_lib.sharding import AXES, param_shardings
from paligemma_lib.tokenizer import Tokenizer


class Options(TypedDict, total=False):
    """Of `Captioner.stream`."""

    prompt: str
    sampler: Strategy
    batch_size: int
    max_new_tokens: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Captioner:
    """A model with all that it takes to write captions."""

    config: PaliGemmaConfig
    params: dict[str, Any]
    tokenizer: Tokenizer

    @overload
    def caption(  # type: ignore[overload-overlap]  # text and bytes are sequences too
        self, images: Image, *, progress: bool | None = None, **options: Unpack[Options]
    ) -> Captioned: ...

    @overload
    def caption(
        self,
        images: Sequence[Image] | Source,
        *,
        progress: bool | None = None,
        **options: Unpack[Options],
    ) -> list[Captioned]: ...

    def caption(
        self,
        images: Image | Sequence[Image] | Source,
        *,
        progress: bool | None = None,
        **options: Unpack[Options],
    ) -> Captioned | list[Captioned]:
        """Captions an image, or many.

        Args:
          images: a path, the bytes of an image file, an image of Pillow's or an array uint8[H, W,
            3]; a list of any of these; a source; or the path of a folder, which makes a list, too
            (type checkers know that of a folder within a list alone).
          progress: whether to show a bar; None: in a terminal, for more than a batch.
          options: as for `stream`.

        Returns:
          One caption for one image, a list in their order for many.

        Raises:
          FileNotFoundError, TypeError, ValueError: something is no image, or cannot be read. With
            `stream` one can go on without it.
        """
        if isinstance(images, Source):
            source, many = images, True
        elif isinstance(images, list | tuple):
            source, many = from_images(images), True
        else:
            source = from_images([cast(Image, images)])
            many = isinstance(images, str | os.PathLike) and os.path.isdir(images)
        if progress is None:
            progress = len(source) > options.get("batch_size", 8) and sys.stderr.isatty()
        captioned = []
        results = self.stream(source, **options)
        for result in tqdm(results, total=len(source), unit="image", disable=not progress):
            if isinstance(result, Skipped):
                raise ValueError(f"{result.where}: {result.problem}")
            captioned.append(result)
        return captioned if many else captioned[0]

    def stream(
        self, source: Source, *, count: int | None = None, **options: Unpack[Options]
    ) -> Iterator[Captioned | Skipped]:
        """Captions all images of a source, one after the other; says which it had to skip.

        Args:
          source: see `pg.data`; a record's own prefix counts instead of `prompt`.
          count: only the first so many images; None: all.
          options: `prompt` ("caption en"), `sampler` (greedy), `batch_size` (8), `max_new_tokens`
            (64) and `seed` (0), as for `streaming.stream`.
        """
        model = self.config, self.params, self.tokenizer
        return stream(*model, source, count=count, **options)


def load(
    checkpoint: str | os.PathLike[str] = "nano",
    tokenizer_path: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
) -> Captioner:
    """Loads a model and its tokenizer.

    Parameters are split over the devices of a process, and whole in each process: of the models
    that there are, even the largest fits on the devices of one machine, and no weights or
    activations have to pass between machines for every token. Where they don't, place them
    otherwise and make a `Captioner`: it works with any placement, as a run of fine-tuning does.

    Args:
      checkpoint: as for `checkpoint.load_params`; "nano" is the small model of the library.
      tokenizer_path: a SentencePiece file; None: the one in the checkpoint's folder, or
        PaliGemma's.
      dtype: of parameters and activations, "float32", "bfloat16" or "float16"; None: parameters as
        they are stored, activations in float32.

    Raises:
      FileNotFoundError, ValueError: a file is missing or damaged, or they don't belong together.
    """
    checkpoint = os.fspath(checkpoint)
    config = read_config(checkpoint)
    if dtype is not None:
        config = dataclasses.replace(config, dtype=dtype)
    path = tokenizer_path or tokenizer_of(checkpoint)
    parts = tokenizer.load(path, config.language.vocab_size)
    sharding = None
    if jax.device_count() > 1:
        mesh = Mesh(np.reshape(jax.devices(), (jax.process_count(), -1)), AXES)
        sharding = param_shardings(mesh, abstract_params(config), "tensor")
    params = load_params(checkpoint, config, sharding=sharding, dtype=dtype)
    return Captioner(config, params, parts)


def tokenizer_of(checkpoint: str) -> Path:
    """The tokenizer beside a checkpoint or in its folder, or else PaliGemma's, which is fetched."""
    place = path_of(checkpoint if is_remote(checkpoint) else hub.fetch(checkpoint))
    beside = (place if place.is_dir() else place.parent) / "tokenizer.model"
    return beside if beside.is_file() else hub.fetch_tokenizer()
