"""Wraps a source so that other records replace the damaged ones.

    source = replace_corrupt(from_tfds("flickr8k_tfds", split="train"))
    len(source), source.read([17, 3]), source.damaged

The substitute of a damaged record is always the same intact record. The numbers of all other
records stay the same, and with them the order of training. A record is damaged if reading it raises
`CorruptRecord`. For TFDS data sets, this includes the records lost from a truncated file. A missing
record file remains an error.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from math import gcd
from typing import Protocol, runtime_checkable

import numpy as np

from paligemma_lib.data.records import CorruptRecord
from paligemma_lib.data.sources import Record, Source
from paligemma_lib.data.sources.protocol import HasTexts, epoch_len, records_of

_MAX_IN_A_ROW = 100

_log = logging.getLogger(__name__)


def replace_corrupt(source: Source) -> Replacing:
    """Returns a source that replaces damaged records, and logs a warning when it finds one."""
    if isinstance(source, MayBeCutOff):
        source = source.despite_damage()
    return Replacing(source)


@runtime_checkable
class MayBeCutOff(Protocol):
    """A source that knows how many records its files should hold, even if a file is truncated."""

    def despite_damage(self) -> Source:
        """Returns the same source, but reading a lost record raises `CorruptRecord`."""
        ...


@dataclasses.dataclass(frozen=True)
class Replacing(Source):
    """Source that replaces damaged records; made by `replace_corrupt`.

    Attributes:
      source: the source to read from.
      damaged: error message of each damaged record found so far, by record number.
    """

    source: Source
    damaged: dict[int, str] = dataclasses.field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.source)

    def where(self, number: int) -> str:
        return self.source.where(number)

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def read(self, numbers: Sequence[int]) -> list[Record]:
        try:
            return self.source.read(numbers)
        except CorruptRecord:
            # One by one, to find which are damaged. Intact reads do not get here, and stay fast.
            return [self._read(number) for number in numbers]

    def epoch_len(self) -> int:
        """Returns the number of examples of an epoch."""
        return epoch_len(self.source)

    def records_of(self, examples: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the records of the source's own order."""
        return records_of(self.source, examples, seed)

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns records without their images, if the source can do without."""
        if isinstance(self.source, HasTexts):
            return self.source.texts(numbers)
        return self.read(numbers)

    def _read(self, number: int) -> Record:
        tries = min(_MAX_IN_A_ROW, len(self))
        for candidate in _others(number, len(self), tries):
            try:
                (record,) = self.source.read([candidate])
                return record
            except CorruptRecord as error:
                if candidate not in self.damaged:
                    # All records lost from a truncated file have one message, which is logged once.
                    if str(error) not in self.damaged.values():
                        _log.warning("%s; using other records instead", error)
                    self.damaged[candidate] = str(error)
        raise ValueError(
            f"{self.where(number)} and {tries - 1} other records are damaged: copy or build the "
            "data set again"
        )


def _others(number: int, count: int, tries: int) -> list[int]:
    """Returns the record numbers to try in turn: the record itself, then its substitutes."""
    # A stride that is coprime to the count visits every record before any repeats. A stride near
    # the golden ratio of the count spreads the candidates evenly, and leads out of a run of
    # neighbouring records that a truncated file has lost.
    stride = next(n for n in range(max(1, round(0.618 * count)), count + 1) if gcd(n, count) == 1)
    return [(number + k * stride) % count for k in range(tries)]
