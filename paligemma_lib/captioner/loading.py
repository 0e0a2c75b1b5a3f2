"""Loads a model and its tokenizer from a checkpoint, and captions images in any form.

captioner = load("paligemma-3b-pt-224.f16.npz")            # or the folder of an adapter
print(captioner.caption("dog.jpg"))                        # or bytes, an array, a list, ...
for result in captioner.stream(pg.data.from_image_files(["Images"]), sampler=Beam(4)):
    print(result.image_id, result)
captioner = load("nano", adapters={"birds": "birds", "dogs": "dogs"}).with_adapter("birds")
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypedDict, Unpack, cast, overload

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from paligemma_lib import tokenizer
from paligemma_lib.captioner.model_files import model_of, tokenizer_of
from paligemma_lib.captioner.streaming import Captioned, Skipped, stream
from paligemma_lib.checkpoint import load_params
from paligemma_lib.checkpoint.adapters import find_adapter, read_adapter
from paligemma_lib.checkpoint.adapters.adapter_image_size import at_image_size
from paligemma_lib.data.given_images import Image, from_images
from paligemma_lib.data.sources import Source
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.model import abstract_params
from paligemma_lib.model.adapter_params import with_adapters
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.parameter_roles import role_of
from paligemma_lib.quantized import KINDS, Kind
from paligemma_lib.runtime.visible_text import visible
from paligemma_lib.sharding import AXES, Layout, param_shardings, replicated
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
      adapters: name -> arrays by name, of adapters that `with_adapter` puts in place.
      adapter: name of the one that is in place; None: none of these.
    """

    config: PaliGemmaConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    adapters: Mapping[str, Mapping[str, jax.Array]] = dataclasses.field(default_factory=dict)
    adapter: str | None = None

    def with_adapter(self, name: str | None) -> Captioner:
        """Returns a captioner with another adapter in place, or with none; arrays are shared.

        Raises:
          ValueError: there is no adapter of that name.
        """
        if name is not None and name not in self.adapters:
            known = ", ".join(map(visible, self.adapters)) or "none"
            raise ValueError(f"no adapter is named {visible(name)}; loaded are: {known}")
        params = with_adapters(self.params, self.adapters[name] if name else {})
        return dataclasses.replace(self, params=params, adapter=name)

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
          count: number of images to caption, from the first, at least 1; None: all.
          options: `prompt` ("caption en"), `sampler` (greedy), `batch_size` (8), `max_new_tokens`
            (64), `seed` (0) and `apply_exif` (True), as for `streaming.stream`.

        Yields:
          `Captioned` or `Skipped`, in the order of the source.
        """
        model = self.config, self.params, self.tokenizer
        results = stream(*model, source, count=count, **options)
        return results if self.adapter is None else _named(results, self.adapter)


def load(
    checkpoint: str | os.PathLike[str] = "nano",
    tokenizer_path: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
    adapters: Mapping[str, str | os.PathLike[str]] = MappingProxyType({}),
    weights: Kind | None = None,
    *,
    image_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Captioner:
    """Loads a model and its tokenizer, and adapters for it.

    Parameters are split over the devices of each process and replicated between processes. Even
    the largest PaliGemma fits on the devices of one machine, and this layout sends no weights or
    activations between machines for every token. If a model does not fit, load its parameters with
    another sharding and construct a `Captioner` from them: it accepts any sharding, including the
    one of a fine-tuning run.

    Args:
      checkpoint: as for `checkpoint.load_params`; "nano" is the small model of the library. Of the
        folder of an adapter, the base model that it names is loaded, and the adapter put in place.
      tokenizer_path: a SentencePiece file, or a tokenizer.json; None: `tokenizer.model` in an
        adapter's folder; or that, or else `tokenizer.json`, in the checkpoint's; or else
        PaliGemma's tokenizer.
      dtype: dtype of parameters and activations, "float32", "bfloat16" or "float16"; None:
        parameters keep the dtype of the file, activations are float32.
      adapters: name -> folder, of adapters for `Captioner.with_adapter`. Their arrays are float32,
        and whole on each device.
      weights: "int8" or "nf4" to quantise matrices while they are loaded, for a half or a quarter
        of the memory of 16 bits; on several devices each then holds all parameters. None: not.
      image_size: pixels a side of the images that the model sees, a multiple of its patches; None:
        those of the adapters, or else of the checkpoint. Position embeddings are interpolated.
      devices: those that hold the model; None: all devices of all processes. A process that
        captions by itself, such as one with an `Engine`, passes its own.

    Raises:
      FileNotFoundError, ValueError: a file is missing or damaged, the checkpoint and the tokenizer
        do not belong together, an adapter is of another base model, or adapters are for different
        image sizes.
    """
    if weights is not None and weights not in KINDS:
        raise ValueError(f"weights={weights!r}, expected one of {', '.join(KINDS)}")
    own = find_adapter(checkpoint)
    checkpoint, config = model_of(checkpoint)
    if dtype is not None:
        config = dataclasses.replace(config, dtype=dtype)
    path = tokenizer_path or tokenizer_of(checkpoint, own)
    parts = tokenizer.load(path, config.language.vocab_size)
    # Adapters first: whether they are of this model shows at once, and they are small.
    arrays = {name: read_adapter(folder, config) for name, folder in adapters.items()}
    of_own = read_adapter(own, config) if own else {}
    config = at_image_size(config, [*([own] if own else []), *adapters.values()], image_size)
    sharding = place = None
    devices = jax.devices() if devices is None else devices
    if len(devices) > 1:
        # Axis 0 of the mesh ("data") has one row for each process. The layout "tensor" splits
        # parameters over axis 1 ("fsdp") only, so every process has a whole copy.
        hosts = len({device.process_index for device in devices})
        mesh = Mesh(np.reshape(np.array(devices), (hosts, -1)), AXES)
        layout: Layout = "replicated" if weights else "tensor"
        sharding = param_shardings(mesh, abstract_params(config), layout)
        place = replicated(mesh)
    loaded = {name: jax.device_put(each, place) for name, each in arrays.items()}
    in_place = jax.device_put(of_own, place)
    params = load_params(
        checkpoint,
        config,
        sharding=sharding,
        dtype=lambda name: weights if weights and role_of(name).is_matrix else dtype,
    )
    return Captioner(config, with_adapters(params, in_place), parts, loaded)


def _named(results: Iterator[Captioned | Skipped], adapter: str) -> Iterator[Captioned | Skipped]:
    for result in results:
        yield (
            dataclasses.replace(result, adapter=adapter)
            if isinstance(result, Captioned)
            else result
        )
