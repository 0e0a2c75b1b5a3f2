"""Computes short fingerprints of sets of records from what is known without reading images.

fingerprint("train.tfrecord", 1200, np.arange(1000))      # "5f0c3b91aa2d7e46"
"""

import hashlib
import os

import numpy as np


def fingerprint(*things: str | int | bytes | np.ndarray) -> str:
    """Returns a hash, 16 hexadecimal digits, of names, sizes and contents in the given order.

    Only the last component of a path counts, so a copy in another folder has the same fingerprint.
    """
    digest = hashlib.sha256()
    for thing in things:
        if isinstance(thing, str):
            thing = os.path.basename(thing).encode()
        elif isinstance(thing, int):
            thing = str(thing).encode()
        elif isinstance(thing, np.ndarray):
            thing = np.ascontiguousarray(thing).tobytes()
        # Each thing is hashed first, so that ("ab", "c") and ("a", "bc") differ.
        digest.update(hashlib.sha256(thing).digest())
    return digest.hexdigest()[:16]
