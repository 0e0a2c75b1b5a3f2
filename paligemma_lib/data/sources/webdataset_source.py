"""Reads WebDataset tar files, where members such as 0001.jpg and 0001.txt are one sample.

    source = WebDatasetSource(("train-000.tar", "train-001.tar"))
    paths = shards_of("train-{000..123}.tar")

Samples are read by number: the headers are scanned once, and the offsets of all members are held in
memory. Compressed tar files are refused, because their members cannot be read by offset.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
import tarfile
from collections.abc import Sequence
from typing import NamedTuple

from paligemma_lib.data.encoded import SUFFIXES
from paligemma_lib.data.files import glob_files, in_parallel, open_file, read_parts, stat
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.data.records import CorruptRecord
from paligemma_lib.data.sources.json_forms import USUAL, object_rows, parse_json
from paligemma_lib.data.sources.protocol import Record, Source
from paligemma_lib.data.text import cleaned, lines_of
from paligemma_lib.runtime.atomic import is_remote

# Extensions of images and of captions. If a sample has several, the first of these is used.
_IMAGES = (*(suffix.lstrip(".") for suffix in SUFFIXES), "img")
_TEXTS = ("txt", "text", "caption", "json", "cls")
_MAX_TEXT_BYTES = 1 << 20

_log = logging.getLogger(__name__)


class _Sample(NamedTuple):
    """Members of a sample; `members` maps each extension to offset and size in the tar file.

    The lost end of a damaged tar file is a sample without members, with a `problem`.
    """

    shard: int
    key: str
    members: dict[str, tuple[int, int]]
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class WebDatasetSource:
    """Samples of tar files, in the order of the files; samples without an image are left out.

    Attributes:
      paths: paths of the tar files, local or remote.
      tolerant: whether to read damaged tar files as far as they go; else they are an error.
    """

    paths: tuple[str, ...]
    tolerant: bool = False

    def despite_damage(self) -> Source:
        """Returns the same source, which also opens damaged tar files; see `MayBeDamaged`."""
        return dataclasses.replace(self, tolerant=True)

    @functools.cached_property
    def _samples(self) -> list[_Sample]:
        shards = in_parallel(_members, self.paths, remote=is_remote(self.paths[0]))
        every: list[_Sample] = []
        for shard, (samples, problem) in enumerate(shards):
            if problem and not self.tolerant:
                raise ValueError(problem)
            every += [_Sample(shard, key, members) for key, members in samples.items()]
            every += [_Sample(shard, "its lost end", {}, problem)] if problem else []
        found = [
            each for each in every if each.problem or any(name in each.members for name in _IMAGES)
        ]
        if found and all(each.problem for each in found):
            raise ValueError(found[0].problem)
        if not found:
            raise ValueError(
                f"{self.paths[0]} has no images: expected members that end in {', '.join(_IMAGES)}"
            )
        if left := [each.key for each in every if _is_text_alone(each)]:
            _log.warning(
                "%s: %d samples have text but no image and are left out, the first is %s",
                self.paths[0], len(left), left[0],
            )  # fmt: skip
        return found

    def __len__(self) -> int:
        return len(self._samples)

    def where(self, number: int) -> str:
        sample = self._samples[number]
        return f"{self.paths[sample.shard]}, {sample.key}"

    def images_of_records(self) -> list[str]:
        """Returns the name of each record's image without reading it."""
        return [sample.key for sample in self._samples]

    def fingerprint(self) -> str:
        members = repr([(sample.key, sample.members) for sample in self._samples])
        return fingerprint(*self.paths, members.encode())

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return in_parallel(self._read, numbers, remote=is_remote(self.paths[0]))

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns records without their images."""
        return in_parallel(self._text, numbers, remote=is_remote(self.paths[0]))

    def _read(self, number: int) -> Record:
        record, sample = self._text(number), self._samples[number]
        image = next(extension for extension in _IMAGES if extension in sample.members)
        encoded = self._bytes(sample, image, MAX_IMAGE_BYTES)
        return dataclasses.replace(record, image=encoded)

    def _text(self, number: int) -> Record:
        sample = self._samples[number]
        if sample.problem:
            raise CorruptRecord(sample.problem)
        captions, prefix = self._captions(sample)
        return Record(b"", captions, sample.key, prefix)

    def _captions(self, sample: _Sample) -> tuple[tuple[str, ...], str | None]:
        """Returns captions and prompt, from the first member that has captions."""
        prefix = None
        where = f"{self.paths[sample.shard]}, {sample.key}"
        try:
            for extension in _TEXTS:
                if extension not in sample.members:
                    continue
                data = self._bytes(sample, extension, _MAX_TEXT_BYTES)
                if extension == "json":
                    found = parse_json(data)
                    named = {**found, "image": sample.key} if isinstance(found, dict) else found
                    rows = list(object_rows(named, "its .json", USUAL))
                    prefixes = {row.prefix for row in rows}
                    if len(prefixes) > 1:
                        raise ValueError("its .json has several questions, expected one prompt")
                    said, prefix = [row.caption or "" for row in rows], *prefixes
                else:
                    said = lines_of(data)
                if captions := tuple(cleaned(text) for text in said if text.strip()):
                    return captions, prefix
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return (), prefix

    def _bytes(self, sample: _Sample, extension: str, most: int) -> bytes:
        offset, size = sample.members[extension]
        where = f"{self.paths[sample.shard]}, {sample.key}.{extension}"
        if size > most:
            raise ValueError(f"{where} has {size:,} bytes, expected at most {most:,}")
        (data,) = read_parts(self.paths[sample.shard], offset, size)
        if len(data) < size:
            raise ValueError(f"{where}: the tar file is truncated; copy it again")
        return data


def _is_text_alone(sample: _Sample) -> bool:
    return not sample.members.keys() & {*_IMAGES} and bool(sample.members.keys() & {*_TEXTS})


def shards_of(pattern: str) -> tuple[str, ...]:
    """Returns the files of a pattern: {000..123} is a range, * and ? match files, sorted.

    Raises:
      FileNotFoundError: no file matches.
    """
    if found := re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern):
        before, first, last, after = found.groups()
        # The width of the first number is kept: {008..010} gives 008, 009, 010.
        numbers = range(int(first), int(last) + 1)
        paths = [f"{before}{number:0{len(first)}d}{after}" for number in numbers]
    else:
        paths = glob_files(pattern)
    return tuple(paths)


def _members(path: str) -> tuple[dict[str, dict[str, tuple[int, int]]], str]:
    """Returns the members of each key of a tar file, in its order, and what is wrong with it."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    size, _ = stat(path)
    try:
        # Mode "r:" allows no compression.
        with open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                folder, name = os.path.split(member.name)
                # As in WebDataset, the key ends at the first dot of the name, so a/0001.seg.png has
                # the key a/0001 and the extension seg.png.
                key, _, extension = name.partition(".")
                if member.isfile() and extension and not name.startswith("."):
                    key = f"{folder}/{key}" if folder else key
                    if member.offset_data + member.size > size:
                        samples.pop(key, None)  # what is there of the sample is not whole
                        return samples, f"{path} is truncated in {member.name}: copy it again"
                    samples.setdefault(key, {})[extension.lower()] = (
                        member.offset_data,
                        member.size,
                    )
            # `tarfile` also ends in silence at a header that is damaged or cut off. A whole file
            # has a block of zeros there.
            file.seek(archive.offset)
            block = file.read(tarfile.BLOCKSIZE)
            if len(block) < tarfile.BLOCKSIZE or any(block):
                problem = f"{path} is truncated or damaged at byte {archive.offset}: copy it again"
                return samples, problem
    except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:  # in a header
        return samples, f"{path} is not a complete, uncompressed tar file: {error}"
    return samples, ""
