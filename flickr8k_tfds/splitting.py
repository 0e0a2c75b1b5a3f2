"""Which split an image belongs to: Flickr8k's official lists, for other images their content.

official_splits()["1000268201_693b08cb0e.jpg"]             # "train"
hashed_split(sha256, {"train": 0.8, "validation": 0.2})    # the same for the same content
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from importlib import resources

SPLITS = ("train", "validation", "test", "unused")


@functools.cache
def official_splits() -> dict[str, str]:
    """Flickr8k's 8,091 image names -> split: 6,000 / 1,000 / 1,000, and 91 `unused` in no list.

    Source: the split lists of Hodosh, Young and Hockenmaier (2013).
    """
    folder = resources.files("flickr8k_tfds") / "splits"
    return {
        name: split
        for split in SPLITS
        for name in (folder / f"{split}.txt").read_text("ascii").split()
    }


def hashed_split(sha256: str, fractions: Mapping[str, float]) -> str:
    """The split of an image by its content, whatever other images there are.

    Args:
      sha256: hexadecimal digest of the image's file.
      fractions: split -> share of the images, checked by `check_fractions`.
    """
    position = int(sha256[:13], 16) / 16**13  # 52 bits: exact in a float, below 1
    edge = 0.0
    shares = [(split, fractions[split]) for split in SPLITS if fractions.get(split)]
    for split, fraction in shares:
        edge += fraction
        if position < edge:
            return split
    return shares[-1][0]  # the fractions add up to a hair below 1


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raises ValueError unless these are shares of known splits that add up to 1."""
    if not isinstance(fractions, Mapping):
        raise ValueError(f"fractions are {fractions!r}, expected a share for each split")
    unknown = set(fractions) - set(SPLITS)
    if unknown:
        raise ValueError(f"fractions name {sorted(unknown)}, expected some of {list(SPLITS)}")
    total = math.fsum(fractions.values())
    if any(fraction < 0 for fraction in fractions.values()) or not abs(total - 1) <= 1e-9:
        raise ValueError(f"fractions {dict(fractions)} must not be negative and must add up to 1")
