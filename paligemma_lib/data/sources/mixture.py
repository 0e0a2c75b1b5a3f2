"""Mixes several sources, with weights and with a prompt of each.

    source = Mixture((coco, photos), weights=(1.0, 3.0), prompts=("caption en", "describe en"))
    len(source)                 # the records of both
    source.epoch_len()          # examples of an epoch: len(coco) + 3 * len(photos)

The weight of a source says how often an epoch visits each of its records on average: with 0.5,
half of them in one epoch, and the others in the next. Records of all sources are shuffled together.
Which record is example i depends on i, the sources and the seed alone, as for a single source.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from paligemma_lib.data import order
from paligemma_lib.data.argument_checks import check_text
from paligemma_lib.data.fingerprints import derived, fingerprint
from paligemma_lib.data.sources.protocol import (
    Record,
    Source,
    check_numbers,
    despite_damage,
    read_texts,
)
from paligemma_lib.runtime.bounds import real

_MAX_WEIGHT = 1_000_000


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Records of several sources, numbered through the sources in their order.

    Image ids begin with the number of their source, since sources may have the same ids: "0/1.jpg".

    Attributes:
      sources: at least one source; each has records.
      weights: visits to a record of each source in an epoch, on average; positive.
      prompts: prompt of the records of each source that have none of their own; "" for that of the
        run.
    """

    sources: tuple[Source, ...]
    weights: tuple[float, ...]
    prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.sources) == len(self.weights) == len(self.prompts):
            raise ValueError(
                f"{len(self.sources)} sources, {len(self.weights)} weights, {len(self.prompts)} "
                "prompts: expected one weight and one prompt for each source"
            )
        for weight in self.weights:
            real("the weight of a source", weight, above=0, most=_MAX_WEIGHT)
        for prompt in self.prompts:
            check_text("the prompt of a source", prompt)
        if not self.sources:
            raise ValueError("a mixture has no sources, expected one or more")

    @functools.cached_property
    def _firsts(self) -> list[int]:
        """Number of the first record of each source, and the number of all records."""
        return [0, *np.cumsum([len(source) for source in self.sources]).tolist()]

    @functools.cached_property
    def _visits(self) -> np.ndarray:
        """int64[sources], the examples of an epoch that are of each source."""
        lengths = np.diff(self._firsts)
        if not lengths.all():
            raise ValueError(f"source {int(lengths.argmin())} of a mixture has no records")
        counts = lengths * np.array(self.weights, np.float64)
        return np.maximum(1, np.round(counts)).astype(np.int64)

    def __len__(self) -> int:
        return self._firsts[-1]

    def despite_damage(self) -> Source:
        """Returns the same mixture of sources that open in spite of damage."""
        return dataclasses.replace(self, sources=tuple(map(despite_damage, self.sources)))

    def epoch_len(self) -> int:
        """Returns the number of examples of an epoch."""
        return int(self._visits.sum())

    def records_of(self, examples: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the record of each example, and how often it was visited before.

        Args:
          examples: int64[n], counted through all epochs.
          seed: seed of the run.

        Returns:
          int64[n] and int64[n].
        """
        # Example i is in epoch i // E, and a permutation of the epoch gives it a slot in [0, E).
        # The slots are divided among the sources. For E = 3 + 4 with sources of 3 and 8 records,
        # the second with weight 0.5:
        #     slot    0 1 2 | 3 4 5 6
        #     source  0 0 0 | 1 1 1 1
        # Slot 4 of epoch e is visit 4 * e + 1 of source 1, whose visits 0 to 7 are one pass through
        # its records, in an order of its own.
        slots = order.record_numbers(examples, records=self.epoch_len(), seed=seed)
        epochs = np.asarray(examples, np.int64) // self.epoch_len()
        ends = np.cumsum(self._visits)
        numbers, passes = np.empty_like(slots), np.empty_like(slots)
        for index, source in enumerate(self.sources):
            count, start = self._visits[index], ends[index] - self._visits[index]
            mine = (slots >= start) & (slots < ends[index])
            visits = epochs[mine] * count + slots[mine] - start
            chosen = order.record_numbers(visits, records=len(source), seed=seed)
            numbers[mine], passes[mine] = self._firsts[index] + chosen, visits // len(source)
        return numbers, passes

    def where(self, number: int) -> str:
        index = self._source_of(number)
        return self.sources[index].where(number - self._firsts[index])

    def fingerprint(self) -> str:
        parts = repr((self.weights, self.prompts)).encode()
        sources = [source.fingerprint() for source in self.sources]
        return derived(sources, lambda firsts: fingerprint(parts, *firsts))

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return self._read(numbers, texts=False)

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns records without their images, where a source can do without."""
        return self._read(numbers, texts=True)

    def _read(self, numbers: Sequence[int], texts: bool) -> list[Record]:
        check_numbers(numbers, len(self))
        # One read per source, so that a remote source can read its records in parallel.
        found: dict[int, Record] = {}
        places = [(number, self._source_of(number)) for number in numbers]
        for index, source in enumerate(self.sources):
            mine = list(dict.fromkeys(number for number, place in places if place == index))
            own = [number - self._firsts[index] for number in mine]
            records = (read_texts(source, own) if texts else source.read(own)) if own else []
            for number, record in zip(mine, records, strict=True):
                prefix = record.prefix if record.prefix is not None else self.prompts[index] or None
                image_id = f"{index}/{record.image_id}"
                found[number] = dataclasses.replace(record, image_id=image_id, prefix=prefix)
        return [found[number] for number in numbers]

    def _source_of(self, number: int) -> int:
        # The last source that begins at or before the number; sources without records begin where
        # the next one does.
        return bisect.bisect_right(self._firsts, number) - 1
