"""The work on one image, apart from where it is done: in a thread here, or by a worker of Beam.

facts = map_ahead(functools.partial(check, upright=True), files)
examples = map_ahead(functools.partial(make_example, side=None, upright=True), planned)
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flickr8k_tfds.image_checks import ImageFacts, examine, sha256
from flickr8k_tfds.layout import File
from flickr8k_tfds.png_encoding import as_png
from flickr8k_tfds.trees import MAX_IMAGE_BYTES, DatasetError, UnreadableFile

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Planned:
    """An image that has passed its check.

    Attributes:
      name: file name without folders, the key of the example.
      file: where its bytes are.
      captions: all captions, in the order of their rows.
      facts: what the check found.
    """

    name: str
    file: File
    captions: list[str]
    facts: ImageFacts


def check(file: File, *, upright: bool) -> ImageFacts:
    """Reads the file of an image and returns what is to be known of it, faults included."""
    try:
        return examine(file.read(MAX_IMAGE_BYTES), file.name, upright=upright)
    except UnreadableFile as error:
        return ImageFacts(sha256="", fault=str(error))


def make_example(planned: Planned, *, side: int | None, upright: bool) -> tuple[str, Example]:
    """Reads an image again and returns the key and the example of TFDS.

    The bytes are not kept since `check`: all images are checked before the first is written, and
    they need not fit into memory.

    Raises:
      DatasetError: the file is not the same any more.
    """
    facts = planned.facts
    try:
        data = planned.file.read(MAX_IMAGE_BYTES)
    except UnreadableFile as error:
        raise DatasetError(f"{planned.file} {_CHANGED} Now it {error}.") from error
    if sha256(data) != facts.sha256:
        raise DatasetError(f"{planned.file} {_CHANGED}")
    if side is not None or not facts.portable:
        data = as_png(data, side=side, upright=upright)
    return planned.name, {
        "image": data,
        "image_id": planned.name,
        "captions": planned.captions,
        "height": facts.height,
        "width": facts.width,
    }


_CHANGED = "has changed since the build began. Build again when its files stay as they are."
