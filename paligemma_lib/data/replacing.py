"""Wraps a source so that other records replace the damaged ones.

    source = replace_corrupt(from_tfds("flickr8k_tfds", split="train"), max_corrupt=0.01)
    len(source), source.read([17, 3]), source.damaged

A record is damaged if it cannot be read, or if its image does not decode. The first is found by
reading, the second by whoever decodes, who then calls `verify` and reads again. The substitute of a
record depends on its number alone. The numbers of all other records stay the same, and with them
the order of training.

What is wrong with the data as a whole is an error when the source is opened: a missing record file,
a table without a usable header, a folder that has none of the images.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from math import gcd

import numpy as np

from paligemma_lib.data.argument_checks import check_share as check_fraction
from paligemma_lib.data.image import decode_image
from paligemma_lib.data.records import CorruptRecord
from paligemma_lib.data.sources import Record, Source, despite_damage
from paligemma_lib.data.sources.protocol import HasTexts, epoch_len, records_of
from paligemma_lib.runtime.retries import is_transient
from paligemma_lib.runtime.visible_text import visible

_MAX_IN_A_ROW = 100
_SHOWN = 3  # damaged records in messages
_FEWEST = 100  # records that a share is taken of, so that 1 of 10 is not too many
_SIDE = 8  # pixels: decoding is what counts

_log = logging.getLogger(__name__)


def replace_corrupt(
    source: Source, *, max_corrupt: float = 1.0, captioned: bool = False
) -> Replacing:
    """Returns a source that replaces damaged records, and logs a warning when it finds one.

    Args:
      source: the source to read from; of one that replaces already, the source below it.
      max_corrupt: largest share of damaged records, see `check_share`.
      captioned: whether a record without captions counts as damaged, as in training.
    """
    max_corrupt = check_fraction("max_corrupt", max_corrupt, zero=True)
    below = source.source if isinstance(source, Replacing) else source
    return Replacing(despite_damage(below), max_corrupt, captioned)


@dataclasses.dataclass(frozen=True)
class Replacing(Source):
    """Source that replaces damaged records; made by `replace_corrupt`.

    Attributes:
      source, max_corrupt, captioned: as for `replace_corrupt`.
      damaged: what is wrong with each damaged record found so far, by record number.
    """

    source: Source
    max_corrupt: float = 1.0
    captioned: bool = False
    damaged: dict[int, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    _substitutes: dict[int, int] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )
    _told: set[str] = dataclasses.field(default_factory=set, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.source)

    def where(self, number: int) -> str:
        return self.source.where(number)

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def read(self, numbers: Sequence[int]) -> list[Record]:
        """Returns the records, or their substitutes.

        Raises:
          ValueError: too many records are damaged, as `check_share` says, or a hundred in a row.
        """
        return self._whole(self.source.read, numbers)

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns records, or their substitutes, without their images, if the source can."""
        read = self.source.texts if isinstance(self.source, HasTexts) else self.source.read
        return self._whole(read, numbers)

    def epoch_len(self) -> int:
        """Returns the number of examples of an epoch."""
        return epoch_len(self.source)

    def records_of(self, examples: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the records of the source's own order."""
        return records_of(self.source, examples, seed)

    def _whole(
        self, read: Callable[[Sequence[int]], list[Record]], numbers: Sequence[int]
    ) -> list[Record]:
        # `len` opens the source, so that what is raised below is about single records.
        check_share(self.damaged, len(self), self.max_corrupt)
        try:
            records = read([self._resolved(number) for number in numbers])
        except (ValueError, OSError) as error:
            _raise_if_transient(error)
        else:
            if not self.captioned or all(record.captions for record in records):
                return self._within_share(records)
        # One by one, to find which are damaged. Intact reads do not get here, and stay fast.
        for number in numbers:
            self._is_whole(self._resolved(number))
        return self._within_share(read([self._resolved(number) for number in numbers]))

    def _within_share(self, records: list[Record]) -> list[Record]:
        # Another thread may have found the record that is one too many, and raised there alone.
        check_share(self.damaged, len(self), self.max_corrupt)
        return records

    def verify(self, numbers: Sequence[int]) -> list[int]:
        """Reads and decodes records, or their substitutes; returns those found to be damaged."""
        resolved = dict.fromkeys(self._resolved(number) for number in numbers)
        return [number for number in resolved if not self._is_whole(number, decode=True)]

    def _resolved(self, number: int) -> int:
        """Returns the number of a record, or of the one that replaces it."""
        found = self._substitutes.get(number, number)
        if found in self.damaged:
            found = self._substitutes[number] = self._substitute(number)
        return found

    def _substitute(self, number: int) -> int:
        tries = min(_MAX_IN_A_ROW, len(self))
        for candidate in _others(number, len(self), tries):
            if candidate not in self.damaged and self._is_whole(candidate):
                return candidate
        raise ValueError(
            f"{self.where(number)} and {tries - 1} other records are damaged: copy or build the "
            f"data set again. What is wrong: {self.damaged[number]}"
        )

    def _is_whole(self, number: int, *, decode: bool = False) -> bool:
        """Returns whether a record can be read, and decoded if asked; notes what is wrong."""
        try:
            (record,) = self.source.read([number])
            if self.captioned and not record.captions:
                raise CorruptRecord(f"image {record.image_id} ({self.where(number)}): no caption")
            if decode:
                check_decodes(self.source, number, record)
        except (ValueError, OSError) as error:
            _raise_if_transient(error)
            self._note(number, str(error))
            return False
        return True

    def _note(self, number: int, problem: str) -> None:
        # All records lost from a truncated file have one message, which is logged once.
        if problem not in self._told and len(self._told) <= _SHOWN:
            self._told.add(problem)
            if len(self._told) <= _SHOWN:
                _log.warning("%s; using other records instead", visible(problem))
            else:
                _log.warning("further damaged records are replaced, too, and counted")
        self.damaged[number] = problem
        check_share(self.damaged, len(self), self.max_corrupt)


def check_share(damaged: Mapping[int, str], records: int, max_corrupt: float) -> None:
    """Raises ValueError if more than a share of the records of a source is damaged.

    The count of those found so far is compared with the share of all records, of at least a
    hundred. So it depends on the data alone whether the limit is ever passed, and not on the order
    of the records; and where damage is frequent, it is passed early.

    Args:
      damaged: what is wrong with each damaged record found so far, by its number.
      records: number of records of the source.
      max_corrupt: largest share of them that may be damaged.
    """
    if len(damaged) <= max_corrupt * max(records, _FEWEST):
        return
    shown = "".join(f"\n  {each}" for each in [*dict.fromkeys(damaged.values())][:_SHOWN])
    raise ValueError(
        f"{len(damaged):,} of {records:,} records are damaged so far; the limit is "
        f"{max_corrupt:.2%}. Repair the data, or raise data.max_corrupt. The first are:"
        f"{shown}"
    )


def check_decodes(source: Source, number: int, record: Record) -> None:
    """Raises ValueError, with id and place, if the image of a record does not decode."""
    try:
        decode_image(record.image, _SIDE)
    except ValueError as error:
        raise ValueError(f"image {record.image_id} ({source.where(number)}) is {error}") from error


def _raise_if_transient(error: Exception) -> None:
    # A storage server that fails says nothing about a record.
    if isinstance(error, OSError) and is_transient(error):
        raise error


def _others(number: int, count: int, tries: int) -> list[int]:
    """Returns the record numbers to try in turn: the record itself, then its substitutes."""
    # A stride that is coprime to the count visits every record before any repeats. A stride near
    # the golden ratio of the count spreads the candidates evenly, and leads out of a run of
    # neighbouring records that a truncated file has lost.
    stride = next(n for n in range(max(1, round(0.618 * count)), count + 1) if gcd(n, count) == 1)
    return [(number + k * stride) % count for k in range(tries)]
