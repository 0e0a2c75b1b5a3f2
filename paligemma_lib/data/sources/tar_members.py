"""Lists the members of tar files, which are not trusted, and the files of a pattern.

    paths = shards_of("train-{000..123}.tar")
    samples, problem = tar_members(paths[0])
    samples["0001"]                                  # {"jpg": (512, 40_123), "txt": (41_472, 31)}

Only headers are read. What they say is checked before it is used: sizes of names are bounded, and
each header lies behind the last one.
"""

from __future__ import annotations

import errno
import os
import re
import tarfile
from typing import BinaryIO, cast

from paligemma_lib.data.files import glob_files, open_file, stat
from paligemma_lib.data.storage_errors import storage_errors

Members = dict[str, tuple[int, int]]  # extension -> offset and size in the file

# Of one read of `tarfile`: headers are 512 bytes, and names and attributes as long as they say.
_MAX_HEADER_BYTES = 16 << 10
_MAX_SHARDS = 1_000_000


def shards_of(pattern: str) -> tuple[str, ...]:
    """Returns the files of a pattern: {000..123} is a range, * and ? match files, sorted.

    Raises:
      FileNotFoundError: no file matches.
      ValueError: a range has no files, or more than a million.
    """
    if found := re.fullmatch(r"(.*)\{(\d{1,18})\.\.(\d{1,18})\}(.*)", pattern):
        before, first, last, after = found.groups()
        # The width of the first number is kept: {008..010} gives 008, 009, 010.
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(numbers) <= _MAX_SHARDS:
            raise ValueError(
                f"{pattern}: {{{first}..{last}}} stands for {len(numbers):,} files, expected 1 to "
                f"{_MAX_SHARDS:,}"
            )
        paths = [f"{before}{number:0{len(first)}d}{after}" for number in numbers]
    else:
        paths = glob_files(pattern)
    return tuple(paths)


def tar_members(path: str) -> tuple[dict[str, Members], str]:
    """Returns the members of each key of a tar file, in its order, and what is wrong with it.

    Raises:
      FileNotFoundError, OSError: the file cannot be read.
    """
    samples: dict[str, Members] = {}
    size, _ = stat(path)
    with storage_errors(path):
        try:
            with open_file(path) as file:
                return samples, _listed(path, file, size, samples)
        # `tarfile` raises TarError, ValueError, OverflowError, MemoryError, RecursionError, ... for
        # headers that are wrong, and seeks to wrong places.
        except Exception as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            if type(error).__module__.startswith("tensorflow"):
                raise  # of the storage
            told = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
            return samples, f"{path} is not a complete, uncompressed tar file: {told}"


def _listed(path: str, file: BinaryIO, size: int, samples: dict[str, Members]) -> str:
    """Adds the members to `samples`, up to damage; returns what is damaged, or ""."""
    last = -1
    # Mode "r:" allows no compression.
    with tarfile.open(fileobj=cast(BinaryIO, _Bounded(file)), mode="r:") as archive:
        for member in archive:
            if archive.offset <= last:  # a size below 0 would lead back, and around forever
                return f"{path} is damaged at byte {last}: copy it again"
            last = archive.offset
            folder, name = os.path.split(member.name)
            # As in WebDataset, the key ends at the first dot of the name, so a/0001.seg.png has the
            # key a/0001 and the extension seg.png.
            key, _, extension = name.partition(".")
            if not member.isfile() or not extension or name.startswith("."):
                continue
            key = f"{folder}/{key}" if folder else key
            whole = member.size >= 0 and not member.issparse()
            if not whole or member.offset_data + member.size > size:
                samples.pop(key, None)  # what is there of the sample is not whole
                return f"{path} is truncated in {member.name}: copy it again"
            samples.setdefault(key, {})[extension.lower()] = (member.offset_data, member.size)
        # `tarfile` also ends in silence at a header that is damaged or cut off. A whole file has a
        # block of zeros there.
        file.seek(archive.offset)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or any(block):
            return f"{path} is truncated or damaged at byte {archive.offset}: copy it again"
    return ""


class _Bounded:
    """A file that refuses to read more at a time than a header may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has {count:,} bytes, at most {_MAX_HEADER_BYTES:,}")
        return self._file.read(count)
