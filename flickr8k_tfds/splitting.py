"""Assigns images to splits: by Flickr8k's official lists, other images by a hash of their content.

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
    """Returns image name -> split for Flickr8k's 8,091 images.

    There are 6,000 for train, 1,000 for validation and 1,000 for test; 91 are in no official list
    and are `unused`. Source: the split lists of Hodosh, Young and Hockenmaier (2013).
    """
    folder = resources.files("flickr8k_tfds") / "splits"
    return {
        name: split
        for split in SPLITS
        for name in (folder / f"{split}.txt").read_text("ascii").split()
    }


def hashed_split(sha256: str, fractions: Mapping[str, float]) -> str:
    """Returns the split of an image. It depends only on the image's content and on the fractions.

    Args:
      sha256: hexadecimal digest of the image's file.
      fractions: split -> share of the images, checked by `check_fractions`.
    """
    position = int(sha256[:13], 16) / 16**13  # in [0, 1): 52 bits, exact in a float
    edge = 0.0
    shares = [(split, fractions[split]) for split in SPLITS if fractions.get(split)]
    for split, fraction in shares:
        edge += fraction
        if position < edge:
            return split
    return shares[-1][0]  # rounding may leave the sum of fractions slightly below 1


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raises ValueError unless the keys are known splits and the shares add up to 1."""
    if not isinstance(fractions, Mapping):
        raise ValueError(f"fractions are {fractions!r}, expected a share for each split")
    unknown = set(fractions) - set(SPLITS)
    if unknown:
        raise ValueError(
            f"fractions has unknown splits {sorted(unknown)}, expected some of {list(SPLITS)}"
        )
    if wrong := [each for each in fractions.values() if not _is_number(each)]:
        raise ValueError(f"fractions has {wrong[0]!r}, expected numbers that add up to 1")
    total = math.fsum(fractions.values())
    if any(fraction < 0 for fraction in fractions.values()) or not abs(total - 1) <= 1e-9:
        raise ValueError(f"fractions {dict(fractions)} must not be negative and must add up to 1")


def _is_number(value: object) -> bool:
    # A bool is an int in Python, but no share.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
