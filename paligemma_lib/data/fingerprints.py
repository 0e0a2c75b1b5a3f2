"""Computes short fingerprints of sets of records from what is known without reading images.

fingerprint("train.tfrecord", 1200, np.arange(1000))      # "5f0c3b91aa2d7e46"
"""

import hashlib
import os
from collections.abc import Callable, Sequence

import numpy as np


def fingerprint(*things: str | int | bytes | np.ndarray) -> str:
    """Returns a hash, 16 hexadecimal digits, of names, sizes and contents in the given order.

    Only the last component of a path counts, so a copy in another folder has the same fingerprint.
    """
    digest = hashlib.sha256()
    for thing in things:
        if isinstance(thing, str):
            thing = os.path.basename(thing).encode(errors="surrogateescape")
        elif isinstance(thing, int):
            thing = str(thing).encode()
        elif isinstance(thing, np.ndarray):
            thing = np.ascontiguousarray(thing).tobytes()
        # Each thing is hashed first, so that ("ab", "c") and ("a", "bc") differ.
        digest.update(hashlib.sha256(thing).digest())
    return digest.hexdigest()[:16]


def derived(sources: Sequence[str], combined: Callable[[list[bytes]], str]) -> str:
    """Returns the fingerprint of what is made of sources, given theirs.

    The part of a fingerprint behind "+", see `content_samples`, stays apart, so that the first part
    of the result is what it was before fingerprints had a second one.

    Args:
      sources: fingerprints of the sources.
      combined: returns the first part, given the first parts of the sources.
    """
    parts = [each.partition("+") for each in sources]
    first, second = combined([each[0].encode() for each in parts]), [each[2] for each in parts]
    return f"{first}+{fingerprint(*(each.encode() for each in second))}" if any(second) else first


def same(before: str, now: str) -> bool:
    """Returns whether a fingerprint, perhaps of before there were second parts, is that of now."""
    return now == before or now.partition("+")[0] == before
