"""Tells apart record files of the same size by a bounded sample of their contents.

    sampled("5f0c3b91aa2d7e46", ["train-0.parquet"])      # "5f0c3b91aa2d7e46+81d4c2a97b3e0f65"

The first and last bytes of a file hold its header and footer, with the statistics and checksums
that most formats have, so that files written from other data differ there. They are read once, when
a run begins; of a hundred thousand files, as many bytes as of a few hundred.
"""

from __future__ import annotations

from collections.abc import Sequence

from paligemma_lib.data.files import in_parallel, read_parts, stat
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.runtime.atomic import is_remote

_END_BYTES = 64 << 10
_MAX_FILES = 256  # that are looked into, evenly spread


def sampled(names_and_sizes: str, paths: Sequence[str]) -> str:
    """Returns a fingerprint of names and sizes with that of a sample of the contents of files.

    Args:
      names_and_sizes: the fingerprint without contents, which stays the first part.
      paths: the files, local or remote.

    Raises:
      OSError, ValueError: a file cannot be read.
    """
    count = min(len(paths), _MAX_FILES)
    chosen = [paths[k * len(paths) // count] for k in range(count)]
    ends = in_parallel(_ends, chosen, remote=bool(chosen) and is_remote(chosen[0]))
    return f"{names_and_sizes}+{fingerprint(*ends)}"


def _ends(path: str) -> bytes:
    size, _ = stat(path)
    (first,) = read_parts(path, 0, min(size, _END_BYTES))
    (last,) = read_parts(path, max(0, size - _END_BYTES), min(size, _END_BYTES))
    return first + last
