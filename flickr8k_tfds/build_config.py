"""The configuration of a build, as TFDS takes it on the command line or in Python."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow_datasets as tfds

from flickr8k_tfds.splitting import check_fractions


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """Configuration of the builder: how images are stored and split.

    On the command line: `--config='{"name": "mine", "fractions": {"train": 0.8, "test": 0.2}}'`.

    Attributes:
      side: None stores images in their size; a number resizes each once to side x side pixels and
        stores a PNG.
      apply_exif: whether images are stored as a viewer shows them, with their EXIF orientation
        applied. JPEG and PNG files that are upright as they are stay unchanged.
      fractions: split -> share of the images. Flickr8k's own images have official splits instead.
      strict: whether the build stops at the first row or image that it would leave out.
      allow_outside: whether links in the folder of images may lead out of it.
    """

    side: int | None = None
    apply_exif: bool = True
    fractions: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1}
    )
    strict: bool = False
    allow_outside: bool = False

    def __post_init__(self):
        check_fractions(self.fractions)
        if self.side is not None and not (type(self.side) is int and 1 <= self.side <= 4096):
            raise ValueError(f"side is {self.side!r}, expected 1 to 4096 pixels, or null")
        for name in ("apply_exif", "strict", "allow_outside"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected true or false")

    def options(self) -> dict[str, Any]:
        """Returns the options that decide what is built, as plain data for JSON."""
        names = ["side", "apply_exif", "fractions", "strict"]
        # Data sets that were built before there was this option do not have it.
        names += ["allow_outside"] if self.allow_outside else []
        return {name: getattr(self, name) for name in names}
