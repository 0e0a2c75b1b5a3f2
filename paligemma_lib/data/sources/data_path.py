"""Tells paths of data from names of splits, without opening anything.

is_path("photos/captions.csv"), is_path("train[:1200]")       # True, False
"""

import os

from paligemma_lib.runtime.atomic import is_remote


def is_path(name: str) -> bool:
    """Returns whether a text is the path of data, and not the name of a split.

    A path exists, or looks like a path: it contains a separator, a pattern or a suffix.
    """
    path, _ = split_path(name)
    if os.path.exists(path) or is_remote(path) or any(mark in path for mark in "*?{/\\"):
        return True
    # A split of TFDS may have dots, but only in brackets.
    return "." in path.partition("[")[0]


def check_path(path: str) -> None:
    """Raises ValueError if no file system could have a path."""
    if "\0" in path:
        raise ValueError(f"{path[:80]!r} is no path: it contains a NUL character")


def split_path(name: str) -> tuple[str, str]:
    """Splits `PATH#SPLIT` into path and split; the split is "" if none is named."""
    # A path that exists is taken whole, since the name of a file or folder may contain "#".
    path, _, split = name.partition("#") if not os.path.exists(name) else (name, "", "")
    return path, split
