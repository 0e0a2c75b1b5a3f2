"""A source that does without its damaged records.

    source = replace_damaged(from_tfds("flickr8k_tfds", split="train"))
    len(source), source.read([17, 3]), source.damaged

The next whole record stands in for a damaged one, so all numbers stay, and with them the order of
training. Damaged is what `DamagedRecord` says; a file that is missing or cut off is an error still.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

from paligemma_lib.data.records import DamagedRecord
from paligemma_lib.data.sources import Record, Source

_MAX_IN_A_ROW = 100

_log = logging.getLogger(__name__)


def replace_damaged(source: Source) -> Replacing:
    """The same records, but for those that are damaged; a warning tells of each that is met."""
    return Replacing(source)


@dataclasses.dataclass(frozen=True)
class Replacing(Source):
    """As `replace_damaged` returns it.

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

    def read(self, numbers: Sequence[int]) -> list[Record]:
        try:
            return self.source.read(numbers)
        except DamagedRecord:
            return [self._read(number) for number in numbers]

    def _read(self, number: int) -> Record:
        tries = min(_MAX_IN_A_ROW, len(self))
        for candidate in range(number, number + tries):
            try:
                (record,) = self.source.read([candidate % len(self)])
                return record
            except DamagedRecord as error:
                if candidate % len(self) not in self.damaged:
                    _log.warning("%s; the next record stands in for it", error)
                    self.damaged[candidate % len(self)] = str(error)
        raise ValueError(
            f"{tries} records from {self.where(number)} on are damaged: copy or build the data set "
            "again"
        )
