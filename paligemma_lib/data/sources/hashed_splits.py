"""Splits a source that has no splits of its own into fractions, by a hash of the image id.

train = hashed_split(source, "train")           # 80 %; validation and test are 10 % each

Adding images moves no other image to another split. All records of the same image are in the same
split, also if they have prompts, and so ids, of their own.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence

from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.sources.protocol import Record, Source, despite_damage

FRACTIONS: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
_CHUNK = 256  # records read at a time


@dataclasses.dataclass(frozen=True)
class Subset:
    """Records of one split of a source, in the order of the source.

    Attributes:
      source: source of all records.
      split: name of the split, a key of FRACTIONS.
      tolerant: whether a record that cannot be read is in some split; else it is an error.
    """

    source: Source
    split: str
    tolerant: bool = False

    def despite_damage(self) -> Source:
        """Returns the same records of a source that opens in spite of damage."""
        return dataclasses.replace(self, source=despite_damage(self.source), tolerant=True)

    @functools.cached_property
    def _numbers(self) -> list[int]:
        names = _names(self.source, self.tolerant)
        return [n for n, name in enumerate(names) if split_of(name) == self.split]

    def __len__(self) -> int:
        return len(self._numbers)

    def where(self, number: int) -> str:
        return self.source.where(self._numbers[number])

    def fingerprint(self) -> str:
        return fingerprint(self.source.fingerprint(), self.split)

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return self.source.read([self._numbers[number] for number in numbers])


def split_of(image: str) -> str:
    """Returns the split of an image, which depends on its name alone."""
    # The hash is a number that is uniform in [0, 1). The fractions divide this interval: [0, 0.8)
    # is train, [0.8, 0.9) validation, [0.9, 1) test.
    digest = hashlib.sha256(image.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in FRACTIONS.items():
        place -= share
        if place < 0:
            return name
    return name  # the last one, if rounding leaves a number just below 1 without a split


def _names(source: Source, tolerant: bool) -> list[str]:
    """Returns the name of each record's image; reads the images only if the source has no names."""
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
        return source.where(number)  # a damaged record has no other name
