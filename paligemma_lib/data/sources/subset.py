"""Defines sources that hold some of the records of another source."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Sequence

from paligemma_lib.data.fingerprints import derived, fingerprint
from paligemma_lib.data.sources.protocol import (
    Record,
    Source,
    check_numbers,
    despite_damage,
    read_texts,
)

_CHUNK = 256  # records read at a time


@dataclasses.dataclass(frozen=True)
class Subset(abc.ABC):
    """Records of one split of a source, in the order of the source.

    Attributes:
      source: source of all records.
      split: name of the split.
      tolerant: whether a record that cannot be read is in some split; else it is an error.
    """

    source: Source
    split: str
    tolerant: bool = False

    def despite_damage(self) -> Source:
        """Returns the same records of a source that opens in spite of damage."""
        return dataclasses.replace(self, source=despite_damage(self.source), tolerant=True)

    @abc.abstractmethod
    def chosen(self, images: Sequence[str]) -> Sequence[bool]:
        """Returns whether each record is in the split, given the name of each record's image."""

    @functools.cached_property
    def _numbers(self) -> list[int]:
        names = images_of_records(self.source, self.tolerant)
        return [number for number, chosen in enumerate(self.chosen(names)) if chosen]

    def __len__(self) -> int:
        return len(self._numbers)

    def where(self, number: int) -> str:
        return self.source.where(self._numbers[number])

    def images_of_records(self) -> list[str]:
        """Returns the name of each record's image; see the function of this name."""
        names = images_of_records(self.source, self.tolerant)
        return [names[number] for number in self._numbers]

    def fingerprint(self) -> str:
        below = self.source.fingerprint()
        return derived([below], lambda firsts: fingerprint(*firsts, self.split))

    def read(self, numbers: Sequence[int]) -> list[Record]:
        check_numbers(numbers, len(self))
        return self.source.read([self._numbers[number] for number in numbers])

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns records without their images, if the source can do without."""
        check_numbers(numbers, len(self))
        return read_texts(self.source, [self._numbers[number] for number in numbers])


def images_of_records(source: Source, tolerant: bool = False) -> list[str]:
    """Returns the name of each record's image; reads images only if the source has no names.

    Args:
      source: the records.
      tolerant: whether the name of a record that cannot be read is its place; else it is an error.
    """
    names = getattr(source, "images_of_records", None)
    if names is not None:
        return names()
    found: list[str] = []
    for first in range(0, len(source), _CHUNK):
        numbers = range(first, min(first + _CHUNK, len(source)))
        try:
            found += [record.image_id for record in source.read(numbers)]
        except ValueError:
            if not tolerant:
                raise
            found += [_name(source, number) for number in numbers]
    return found


def _name(source: Source, number: int) -> str:
    try:
        return source.read([number])[0].image_id
    except ValueError:
        return source.where(number)
