"""Reads WebDataset tar files, where members such as 0001.jpg and 0001.txt are one sample.

    source = WebDatasetSource(("train-000.tar", "train-001.tar"))
    paths = shards_of("train-{000..123}.tar")

Samples are read by number: the headers are scanned once, and the offsets of all members are held in
memory. Compressed tar files are refused, because their members cannot be read by offset.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import tarfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from paligemma_lib.data.encoded import SUFFIXES
from paligemma_lib.data.files import MAX_IMAGE_BYTES, in_parallel, open_file, read_parts, stat
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.sources.json_forms import CAPTION_KEYS, PREFIX_KEYS
from paligemma_lib.data.sources.protocol import Record
from paligemma_lib.data.sources.table_forms import decoded
from paligemma_lib.data.text import cleaned
from paligemma_lib.runtime.atomic import is_remote

# Extensions of images and of captions. If a sample has several, the first of these is used.
_IMAGES = (*(suffix.lstrip(".") for suffix in SUFFIXES), "img")
_TEXTS = ("txt", "text", "caption", "cls")
_MAX_TEXT_BYTES = 1 << 20


class _Sample(NamedTuple):
    """Members of a sample; `members` maps each extension to offset and size in the tar file."""

    shard: int
    key: str
    members: dict[str, tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class WebDatasetSource:
    """Samples of tar files, in the order of the files; samples without an image are skipped.

    Attributes:
      paths: paths of the tar files, local or remote.
    """

    paths: tuple[str, ...]

    @functools.cached_property
    def _samples(self) -> list[_Sample]:
        shards = in_parallel(_members, self.paths, remote=is_remote(self.paths[0]))
        found = [
            _Sample(shard, key, members)
            for shard, samples in enumerate(shards)
            for key, members in samples.items()
            if any(extension in members for extension in _IMAGES)
        ]
        if not found:
            raise ValueError(
                f"{self.paths[0]} holds no images; members end in {', '.join(_IMAGES)}"
            )
        return found

    def __len__(self) -> int:
        return len(self._samples)

    def where(self, number: int) -> str:
        sample = self._samples[number]
        return f"{self.paths[sample.shard]}, {sample.key}"

    def image_ids(self) -> list[str]:
        """Returns the image id of each record without reading images."""
        return [sample.key for sample in self._samples]

    def fingerprint(self) -> str:
        members = repr([(sample.key, sample.members) for sample in self._samples])
        return fingerprint(*self.paths, members.encode())

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return in_parallel(self._read, numbers, remote=is_remote(self.paths[0]))

    def _read(self, number: int) -> Record:
        sample = self._samples[number]
        image = next(extension for extension in _IMAGES if extension in sample.members)
        captions, prefix = self._captions(sample)
        return Record(self._bytes(sample, image, MAX_IMAGE_BYTES), captions, sample.key, prefix)

    def _captions(self, sample: _Sample) -> tuple[tuple[str, ...], str | None]:
        where = f"{self.paths[sample.shard]}, {sample.key}"
        try:
            for extension in _TEXTS:
                if extension in sample.members:
                    text = decoded(self._bytes(sample, extension, _MAX_TEXT_BYTES))
                    lines = (line.strip() for line in text.splitlines())
                    return tuple(line for line in lines if line), None
            if "json" not in sample.members:
                return (), None
            found = json.loads(self._bytes(sample, "json", _MAX_TEXT_BYTES))
            said: Any = next((found[key] for key in CAPTION_KEYS if found.get(key)), [])
            captions = said if isinstance(said, list) else [said]
            prefix = next((found[key] for key in PREFIX_KEYS if found.get(key)), None)
            if not all(isinstance(text, str) for text in captions):
                raise ValueError(f"{str(said)[:80]} is no caption")
        except (ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"{where}: {error}") from error
        return tuple(cleaned(text) for text in captions if text.strip()), prefix

    def _bytes(self, sample: _Sample, extension: str, most: int) -> bytes:
        offset, size = sample.members[extension]
        where = f"{self.paths[sample.shard]}, {sample.key}.{extension}"
        if size > most:
            raise ValueError(f"{where}: {size:,} bytes are too many, at most {most:,} are read")
        (data,) = read_parts(self.paths[sample.shard], offset, size)
        if len(data) < size:
            raise ValueError(f"{where}: the tar file is cut off; copy it again")
        return data


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
        paths = sorted(tf.io.gfile.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"no file matches {pattern}")
    return tuple(paths)


def _members(path: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Returns the members of each key of a tar file, in the order of the file."""
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
                    if member.offset_data + member.size > size:
                        raise ValueError(f"{path} is cut off in {member.name}: copy it again")
                    key = f"{folder}/{key}" if folder else key
                    samples.setdefault(key, {})[extension.lower()] = (
                        member.offset_data,
                        member.size,
                    )
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no whole, uncompressed tar file: {error}") from error
    return samples
