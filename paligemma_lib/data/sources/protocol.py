"""What every source of images and captions has: records by number.

record = source.read([17])[0]
record.image, record.captions, record.image_id
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True)
class Record:
    """One image with its captions.

    Attributes:
      image: the bytes of an image file.
      captions: suffixes; empty for an image that is only to be captioned.
      image_id: the name of the image in its data set.
      prefix: the prompt; None where the data set gives none.
    """

    image: bytes
    captions: tuple[str, ...]
    image_id: str
    prefix: str | None = None


@runtime_checkable
class Source(Protocol):
    """Records by number. Any object with these methods is a source; it need not inherit.

    Several threads read at the same time. As long as the fingerprint stays the same, a number has
    to mean the same record, since the order of training is an order of numbers.
    """

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> list[Record]:
        """Returns the records with these numbers, counted from 0.

        Raises:
          ValueError, FileNotFoundError: a record cannot be read; the message names it.
        """
        ...

    def where(self, number: int) -> str:
        """Returns file and place of a record, for messages."""
        ...

    def fingerprint(self) -> str:
        """Returns digits that change when records are added, removed or changed."""
        ...
