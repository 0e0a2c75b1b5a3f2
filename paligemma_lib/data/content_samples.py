"""Tells apart files of the same names by a bounded sample of their contents.

    sampled("5f0c3b91aa2d7e46", ["train-0.parquet"])      # "5f0c3b91aa2d7e46+81d4c2a97b3e0f65"
    sampled_images("5f0c3b91aa2d7e46", ["photos/1.jpg"], within=("photos",))

The first and last bytes of a file hold its header and footer, with the statistics and checksums
that most formats have, so that files written from other data differ there. They are read once, when
a run begins; of a hundred thousand files, as many bytes as of a few hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from paligemma_lib.data.files import in_parallel, read_parts, stat
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.outside import check_link
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.retries import is_transient

MAX_SMALL = 16_384  # files whose size is asked for, or texts that are read
_END_BYTES = 64 << 10
_MAX_FILES = 256  # that are looked into

K = TypeVar("K")
T = TypeVar("T")


def sampled(names_and_sizes: str, paths: Sequence[str]) -> str:
    """Returns a fingerprint of names and sizes with that of a sample of the contents of files.

    Args:
      names_and_sizes: the fingerprint without contents, which stays the first part.
      paths: the files, local or remote.

    Raises:
      OSError, ValueError: a file cannot be read.
    """
    return f"{names_and_sizes}+{fingerprint(*_of_each(_ends, spread(paths, _MAX_FILES)))}"


def sampled_images(
    names: str, paths: Sequence[str], *, within: Sequence[str], texts: bytes = b""
) -> str:
    """Returns a fingerprint of names with that of sizes and a sample of the contents of images.

    An image that cannot be read counts as an empty one: whoever reads it tells what is wrong.

    Args:
      names: the fingerprint without sizes and contents, which stays the first part.
      paths: the images, local or remote.
      within: folders that links must not lead out of, see `outside`.
      texts: what else the second part tells apart.

    Raises:
      OSError: the storage failed.
    """

    def size(path: str) -> int:
        check_link(path, within)
        return stat(path)[0]

    def ends(path: str) -> bytes:
        check_link(path, within)
        return _ends(path)

    sizes = [found or 0 for found in _of_each(if_whole(size), spread(paths, MAX_SMALL))]
    parts = [found or b"" for found in _of_each(if_whole(ends), spread(paths, _MAX_FILES))]
    return f"{names}+{fingerprint(np.array(sizes, np.int64), *parts, texts)}"


def spread(items: Sequence[T], most: int) -> list[T]:
    """Returns all items, or so many that are evenly spread over them."""
    count = min(len(items), most)
    return [items[k * len(items) // count] for k in range(count)]


def if_whole(read: Callable[[K], T]) -> Callable[[K], T | None]:
    """Returns a function that reads the same, and returns None for what is damaged."""

    def found(key: K) -> T | None:
        try:
            return read(key)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and is_transient(error):
                raise
            return None

    return found


def _of_each(function: Callable[[str], T], paths: Sequence[str]) -> list[T]:
    return in_parallel(function, paths, remote=bool(paths) and is_remote(paths[0]))


def _ends(path: str) -> bytes:
    size, _ = stat(path)
    (first,) = read_parts(path, 0, min(size, _END_BYTES))
    (last,) = read_parts(path, max(0, size - _END_BYTES), min(size, _END_BYTES))
    return first + last
