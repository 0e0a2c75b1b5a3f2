"""Splits of a source that has none: fractions by a hash of the image's name.

train = hashed_split(source, "train")           # 80 %; validation and test are 10 % each

Adding images moves none of the others between splits, and all records of an image are on one side.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence

from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.sources.protocol import Record, Source

FRACTIONS: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
_CHUNK = 256  # records read at a time


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some records of a source, in its order.

    Attributes:
      source: of all records.
      split: a key of FRACTIONS.
    """

    source: Source
    split: str

    @functools.cached_property
    def _numbers(self) -> list[int]:
        return [n for n, name in enumerate(_names(self.source)) if split_of(name) == self.split]

    def __len__(self) -> int:
        return len(self._numbers)

    def where(self, number: int) -> str:
        return self.source.where(self._numbers[number])

    def fingerprint(self) -> str:
        return fingerprint(self.source.fingerprint(), self.split)

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return self.source.read([self._numbers[number] for number in numbers])


def split_of(image_id: str) -> str:
    """The split of an image: where its hash falls among the fractions."""
    digest = hashlib.sha256(image_id.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in FRACTIONS.items():
        place -= share
        if place < 0:
            return name
    return name


def _names(source: Source) -> list[str]:
    """The image id of each record, without reading images where the source knows it."""
    names = getattr(source, "image_ids", None)
    if names is not None:
        return names()
    return [
        record.image_id
        for first in range(0, len(source), _CHUNK)
        for record in source.read(range(first, min(first + _CHUNK, len(source))))
    ]
