"""Gives a base model the image size that its adapters were trained at.

config = at_image_size(read_config("nano"), ["birds"])     # 192 pixels, if birds was trained there
config = at_image_size(read_config("nano"), ["birds"], 96)

A position embedding is interpolated to the size while it is loaded.
"""

import dataclasses
import os
from collections.abc import Sequence

from paligemma_lib.checkpoint.adapters.adapter_folder import (
    IMAGE_SIZE,
    adapter_folder,
    adapter_metadata,
)
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.bounds import whole

MAX_IMAGE_SIZE = 1 << 13  # pixels a side, as for a run


def at_image_size(
    config: PaliGemmaConfig,
    adapters: Sequence[str | os.PathLike[str]],
    image_size: int | None = None,
) -> PaliGemmaConfig:
    """Returns the configuration with another image size.

    Args:
      config: the base model.
      adapters: folders of adapters, as for `read_adapter`. One that tells no image size, as peft
        writes it, fits any.
      image_size: pixels a side; None: that of the adapters, or else the base model's.

    Raises:
      FileNotFoundError, ValueError: an adapter is missing or damaged, the adapters were trained at
        different sizes, or the size is no multiple of the model's patches.
    """
    if image_size is None:
        told = {os.fspath(folder): size for folder in adapters if (size := _told_by(folder))}
        if len(set(told.values())) > 1:
            sizes = ", ".join(f"{folder} at {size} pixels" for folder, size in told.items())
            raise ValueError(
                f"adapters of different image sizes do not go together: {sizes}. Take one of them "
                "at a time, or choose a size for all: image_size=N, or --image-size N"
            )
        image_size = next(iter(told.values()), config.vision.image_size)
    size = whole("image_size", image_size, 1, MAX_IMAGE_SIZE)
    return dataclasses.replace(config, vision=dataclasses.replace(config.vision, image_size=size))


def _told_by(folder: str | os.PathLike[str]) -> int | None:
    place = adapter_folder(folder)
    text = adapter_metadata(place).get(IMAGE_SIZE)
    if text is None:
        return None
    size = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else text
    return whole(f"{place}: {IMAGE_SIZE} in the metadata", size, 1, MAX_IMAGE_SIZE)
