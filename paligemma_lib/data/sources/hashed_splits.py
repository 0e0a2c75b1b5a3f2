"""Splits a source that has no splits of its own into fractions, by a hash of the image id.

train = HashedSplit(source, "train")           # 80 %; validation and test are 10 % each

Adding images moves no other image to another split. All records of the same image are in the same
split, also if they have prompts, and so ids, of their own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

from paligemma_lib.data.sources.subset import Subset

FRACTIONS: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}


@dataclasses.dataclass(frozen=True)
class HashedSplit(Subset):
    """Records of one fraction of a source; the split is a key of FRACTIONS."""

    def chosen(self, images: Sequence[str]) -> list[bool]:
        return [split_of(image) == self.split for image in images]


def split_of(image: str) -> str:
    """Returns the split of an image, which depends on its name alone."""
    # The hash is a number that is uniform in [0, 1). The fractions divide this interval: [0, 0.8)
    # is train, [0.8, 0.9) validation, [0.9, 1) test.
    digest = hashlib.sha256(image.encode(errors="surrogateescape")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in FRACTIONS.items():
        place -= share
        if place < 0:
            return name
    return name  # the last one, if rounding leaves a number just below 1 without a split
