"""A source that does without its damaged records.

    source = replace_corrupt(from_tfds("flickr8k_tfds", split="train"))
    len(source), source.read([17, 3]), source.damaged

Another, whole record stands in for a damaged one, always the same, so all numbers stay, and with
them the order of training. Damaged is what `CorruptRecord` says: of a TFDS data set also what is
lost of a file that is cut off. A file that is missing is an error still.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from math import gcd
from typing import Protocol, runtime_checkable

from paligemma_lib.data.records import CorruptRecord
from paligemma_lib.data.sources import Record, Source

_MAX_IN_A_ROW = 100

_log = logging.getLogger(__name__)


def replace_corrupt(source: Source) -> Replacing:
    """The same records, but for those that are damaged; a warning tells of each that is met."""
    if isinstance(source, MayBeCutOff):
        source = source.despite_damage()
    return Replacing(source)


@runtime_checkable
class MayBeCutOff(Protocol):
    """A source that knows what its files should hold, and so which records a cut-off one lacks."""

    def despite_damage(self) -> Source:
        """The same, in which records that are lost raise `CorruptRecord` when they are read."""
        ...


@dataclasses.dataclass(frozen=True)
class Replacing(Source):
    """As `replace_corrupt` returns it.

    Attributes:
      source: what is read.
      damaged: what is wrong with the damaged records that were met, by their numbers.
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
            return [self._read(number) for number in numbers]

    def _read(self, number: int) -> Record:
        tries = min(_MAX_IN_A_ROW, len(self))
        for candidate in _others(number, len(self), tries):
            try:
                (record,) = self.source.read([candidate])
                return record
            except CorruptRecord as error:
                if candidate not in self.damaged:
                    if str(error) not in self.damaged.values():  # once for all that a file has lost
                        _log.warning("%s; other records stand in", error)
                    self.damaged[candidate] = str(error)
        raise ValueError(
            f"{self.where(number)} and {tries - 1} other records are damaged: copy or build the "
            "data set again"
        )


def _others(number: int, count: int, tries: int) -> list[int]:
    """Numbers to try in turn, spread evenly, so that neighbours get different ones to stand in."""
    # A stride without a common divisor with the count visits every record before any comes again;
    # near the golden ratio, neighbours' substitutes lie far apart.
    stride = next(n for n in range(max(1, round(0.618 * count)), count + 1) if gcd(n, count) == 1)
    return [(number + k * stride) % count for k in range(tries)]
