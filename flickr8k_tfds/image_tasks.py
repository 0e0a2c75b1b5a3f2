"""The work on one image, apart from where it is done: in a thread here, or by a worker of Beam.

facts, data = load(file, side=None, apply_exif=True)       # in a thread: reads the file once
facts = check(file, apply_exif=True)                       # by Beam: first all are checked,
name, example = load_checked(checked, side=None, apply_exif=True)    # then those that are kept
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flickr8k_tfds.image_checks import ImageFacts, examine, sha256
from flickr8k_tfds.layout import File
from flickr8k_tfds.png_encoding import as_png
from flickr8k_tfds.trees import MAX_IMAGE_BYTES, DatasetError, UnreadableFile

Example = dict[str, Any]
KeyExample = tuple[str, Example]


@dataclasses.dataclass(frozen=True)
class Checked:
    """An image that is kept.

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


def digest(file: File) -> str:
    """Returns the hash of a file that `ImageFacts` has too; "" if it cannot be read."""
    try:
        return sha256(file.read(MAX_IMAGE_BYTES))
    except UnreadableFile:
        return ""


def check(file: File, *, apply_exif: bool) -> ImageFacts:
    """Reads the file of an image and returns what is to be known of it, faults included."""
    try:
        return examine(file.read(MAX_IMAGE_BYTES), file.name, apply_exif=apply_exif)
    except UnreadableFile as error:
        return ImageFacts(sha256="", fault=str(error))


def load(file: File, *, side: int | None, apply_exif: bool) -> tuple[ImageFacts, bytes]:
    """Returns what `check` does, and the bytes to store; b"" if the image has a fault."""
    try:
        data = file.read(MAX_IMAGE_BYTES)
    except UnreadableFile as error:
        return ImageFacts(sha256="", fault=str(error)), b""
    facts = examine(data, file.name, apply_exif=apply_exif)
    return facts, _stored(data, facts, side, apply_exif)


def load_checked(checked: Checked, *, side: int | None, apply_exif: bool) -> KeyExample:
    """Reads an image again and returns the key and the example of TFDS.

    Raises:
      DatasetError: the file is not the same any more.
    """
    try:
        data = checked.file.read(MAX_IMAGE_BYTES)
    except UnreadableFile as error:
        raise changed(checked.file) from error
    if sha256(data) != checked.facts.sha256:
        raise changed(checked.file)
    stored = _stored(data, checked.facts, side, apply_exif)
    return checked.name, example(checked.name, checked.captions, checked.facts, stored)


def example(name: str, captions: list[str], facts: ImageFacts, stored: bytes) -> Example:
    """Returns an example of TFDS."""
    return {
        "image": stored,
        "image_id": name,
        "captions": captions,
        "height": facts.height,
        "width": facts.width,
    }


def changed(file: File) -> DatasetError:
    """Returns the error for a file that has changed between two readings."""
    return DatasetError(
        f"{file} has changed since the build began. Build again when its files stay as they are."
    )


def _stored(data: bytes, facts: ImageFacts, side: int | None, apply_exif: bool) -> bytes:
    if facts.fault:
        return b""
    return (
        data if facts.portable and side is None else as_png(data, side=side, apply_exif=apply_exif)
    )
