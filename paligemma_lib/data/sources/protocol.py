"""Defines the protocol of sources, which return images with their captions by number.

record = source.read([17])[0]
record.image, record.captions, record.image_id
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from paligemma_lib.data import order


@dataclasses.dataclass(frozen=True)
class Record:
    """One image with its captions.

    Attributes:
      image: bytes of an image file.
      captions: captions of the image; empty for an image that is only to be captioned.
      image_id: name of the image in its data set.
      prefix: the prompt; None if the data set has none.
    """

    image: bytes
    captions: tuple[str, ...]
    image_id: str
    prefix: str | None = None


@runtime_checkable
class Source(Protocol):
    """Records by number. Any object with these methods is a source, without inheriting from this.

    Several threads may read at the same time. As long as the fingerprint stays the same, a number
    must refer to the same record, because the order of training is an order of numbers.
    """

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> list[Record]:
        """Returns the records with these numbers, counted from 0.

        Raises:
          ValueError, FileNotFoundError: a record cannot be read; the message names it.
        """
        ...

    def where(self, number: int) -> str:
        """Returns the file of a record and its place in the file, for messages."""
        ...

    def fingerprint(self) -> str:
        """Returns a string of digits that changes when records are added, removed or changed.

        One with "+" has a second part, which runs from before it was there are not compared by.
        """
        ...


@runtime_checkable
class HasTexts(Protocol):
    """A source that can return texts without reading images, which is far faster."""

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns the records with these numbers, with an image of b""."""
        ...


@runtime_checkable
class HasOrder(Protocol):
    """A source that decides which records an epoch visits; that of others is a permutation."""

    def epoch_len(self) -> int:
        """Returns the number of examples of an epoch."""
        ...

    def records_of(self, examples: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the record of each example, and how often it was visited before: int64[n] both.

        Both depend on the example, counted through all epochs, and on the seed alone.
        """
        ...


@runtime_checkable
class MayBeDamaged(Protocol):
    """A source that may find damage when it is opened, such as a row without an image."""

    def despite_damage(self) -> Source:
        """Returns the same source, which opens in spite of damage.

        Each damaged place is a record, in its order and split, and reading it raises ValueError. So
        is the lost end of a file that is cut off, unless the data say how many records are lost.
        """
        ...


def epoch_len(source: Source) -> int:
    """Returns the number of examples of an epoch; every record is one, unless a source differs."""
    return source.epoch_len() if isinstance(source, HasOrder) else len(source)


def records_of(source: Source, examples: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the record of each example, and how often it was visited before: int64[n] both."""
    if isinstance(source, HasOrder):
        return source.records_of(examples, seed)
    return order.record_numbers(examples, records=len(source), seed=seed), examples // len(source)


def read_texts(source: Source, numbers: Sequence[int]) -> list[Record]:
    """Returns records for the sake of their texts; images are b"" where they need not be read."""
    return source.texts(numbers) if isinstance(source, HasTexts) else source.read(numbers)


def check_numbers(numbers: Iterable[int], count: int) -> None:
    """Raises ValueError if a number is not that of a record, counted from 0 to `count` - 1."""
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"no record {number}: the data has {count:,}, numbered from 0")


def despite_damage(source: Source) -> Source:
    """Returns a source that opens in spite of damage, if damage can keep it from opening at all."""
    return source.despite_damage() if isinstance(source, MayBeDamaged) else source


def unique_ids(images: Sequence[str]) -> list[str]:
    """Returns an image id for each record from the name of its image.

    An image with several prompts is several records. Each has its own id: "1.jpg#1", "1.jpg#2". An
    id that is the name of another image is passed over.
    """
    counts, ordinals = Counter(images), Counter[str]()
    if len(counts) == len(images):
        return list(images)
    ids = []
    for image in images:
        if counts[image] == 1:
            ids.append(image)
            continue
        ordinals[image] += 1
        while (name := f"{image}#{ordinals[image]}") in counts:
            ordinals[image] += 1
        ids.append(name)
    return ids
