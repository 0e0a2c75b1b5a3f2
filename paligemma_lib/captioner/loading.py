"""Loads a model and its tokenizer from a checkpoint, and captions images in any form.

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
    """Keyword arguments that `Captioner.caption` and `Captioner.stream` share."""

    prompt: str
    sampler: Strategy
    batch_size: int
    max_new_tokens: int
    seed: int
    apply_exif: bool


@dataclasses.dataclass(frozen=True)
class Captioner:
    """A model that captions images.

    Attributes:
      config: the architecture and dtype of the model.
      params: its parameters, with the names of `model.init`.
      tokenizer: its tokenizer.
    """

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
        """Captions one image or several.

        Args:
          images: a path, the bytes of an image file, a Pillow image or an array uint8[H, W, 3]; a
            list of any of these; a source; or the path of a folder. For a folder the result is a
            list. (Type checkers infer a list only for a folder inside a list.)
          progress: whether to show a progress bar; None: only in a terminal, and only for more
            images than one batch.
          options: the same as for `stream`.

        Returns:
          A `Captioned` for one image; a list of them, in the order of the images, for several.

        Raises:
          FileNotFoundError, TypeError, ValueError: an image cannot be read or decoded, or an
            argument is not an image. `stream` skips images that cannot be read or decoded.
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
        """Yields a result for each image of a source: its caption, or why it was skipped.

        Args:
          source: see `pg.data`; where a record has a prefix, it replaces `prompt`.
          count: number of images to caption, from the first; None: all.
          options: `prompt` ("caption en"), `sampler` (greedy), `batch_size` (8), `max_new_tokens`
            (64), `seed` (0) and `apply_exif` (True), as for `streaming.stream`.

        Yields:
          `Captioned` or `Skipped`, in the order of the source.
        """
        model = self.config, self.params, self.tokenizer
        return stream(*model, source, count=count, **options)


def load(
    checkpoint: str | os.PathLike[str] = "nano",
    tokenizer_path: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
) -> Captioner:
    """Loads a model and its tokenizer.

    Parameters are split over the devices of each process and replicated between processes. Even
    the largest PaliGemma fits on the devices of one machine, and this layout sends no weights or
    activations between machines for every token. If a model does not fit, load its parameters with
    another sharding and construct a `Captioner` from them: it accepts any sharding, including the
    one of a fine-tuning run.

    Args:
      checkpoint: as for `checkpoint.load_params`; "nano" is the small model of the library.
      tokenizer_path: a SentencePiece file; None: `tokenizer.model` in the checkpoint's folder, or
        else PaliGemma's tokenizer.
      dtype: dtype of parameters and activations, "float32", "bfloat16" or "float16"; None:
        parameters keep the dtype of the file, activations are float32.

    Raises:
      FileNotFoundError, ValueError: a file is missing or damaged, or the checkpoint and the
        tokenizer do not belong together.
    """
    checkpoint = os.fspath(checkpoint)
    config = read_config(checkpoint)
    if dtype is not None:
        config = dataclasses.replace(config, dtype=dtype)
    path = tokenizer_path or tokenizer_of(checkpoint)
    parts = tokenizer.load(path, config.language.vocab_size)
    sharding = None
    if jax.device_count() > 1:
        # Axis 0 of the mesh ("data") has one row for each process. The layout "tensor" splits
        # parameters over axis 1 ("fsdp") only, so every process has a whole copy.
        mesh = Mesh(np.reshape(jax.devices(), (jax.process_count(), -1)), AXES)
        sharding = param_shardings(mesh, abstract_params(config), "tensor")
    params = load_params(checkpoint, config, sharding=sharding, dtype=dtype)
    return Captioner(config, params, parts)


def tokenizer_of(checkpoint: str) -> Path:
    """Returns `tokenizer.model` in or beside a checkpoint, or else PaliGemma's, downloaded."""
    place = path_of(checkpoint if is_remote(checkpoint) else hub.fetch(checkpoint))
    beside = (place if place.is_dir() else place.parent) / "tokenizer.model"
    return beside if beside.is_file() else hub.fetch_tokenizer()
