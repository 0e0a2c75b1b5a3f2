"""Reads WebDataset tar files, where members such as 0001.jpg and 0001.txt are one sample.

    source = WebDatasetSource(("train-000.tar", "train-001.tar"))

Samples are read by number: the headers are scanned once, and the offsets of all members are held in
memory. Compressed tar files are refused, because their members cannot be read by offset.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from paligemma_lib.data.content_samples import sampled
from paligemma_lib.data.encoded import SUFFIXES
from paligemma_lib.data.files import in_parallel, read_parts
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.data.outside import leads_out
from paligemma_lib.data.records import CorruptRecord
from paligemma_lib.data.sources.json_forms import USUAL, object_rows
from paligemma_lib.data.sources.json_values import parse_json
from paligemma_lib.data.sources.protocol import Record, Source, check_numbers, unique_ids
from paligemma_lib.data.sources.tar_members import tar_members
from paligemma_lib.data.text import cleaned, lines_of
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.visible_text import visible

# Extensions of images and of captions. If a sample has several, the first of these is used.
_IMAGES = (*(suffix.lstrip(".") for suffix in SUFFIXES), "img")
_TEXTS = ("txt", "text", "caption", "json", "cls")
_MAX_TEXT_BYTES = 1 << 20
_MAX_GAP = 64 << 10  # bytes between members that are read in one go
_NOTHING: Mapping[str, bytes] = {}

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
        shards = in_parallel(tar_members, self.paths, remote=is_remote(self.paths[0]))
        every: list[_Sample] = []
        for shard, (samples, problem) in enumerate(shards):
            if problem and not self.tolerant:
                raise ValueError(problem)
            every += [_sample(self.paths[shard], shard, *each) for each in samples.items()]
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
                visible(self.paths[0]), len(left), visible(left[0]),
            )  # fmt: skip
        return found

    def __len__(self) -> int:
        return len(self._samples)

    def where(self, number: int) -> str:
        sample = self._samples[number]
        return f"{self.paths[sample.shard]}, {sample.key}"

    @functools.cached_property
    def _ids(self) -> dict[tuple[int, str], str]:
        """Ids of the samples whose keys other shards have, too: with the name of their shard."""
        counts = Counter(sample.key for sample in self._samples)
        names = unique_ids([os.path.basename(path).partition(".")[0] for path in self.paths])
        shared = [sample for sample in self._samples if counts[sample.key] > 1]
        found = {(s.shard, s.key): f"{names[s.shard]}/{s.key}" for s in shared}
        if taken := counts.keys() & {*found.values()}:
            raise ValueError(
                f"{self.paths[0]} and other shards have the same key for different samples, and "
                f"another one is called {min(taken)}: rename one of them"
            )
        return found

    def images_of_records(self) -> list[str]:
        """Returns the name of each record's image without reading it."""
        return [sample.key for sample in self._samples]

    def fingerprint(self) -> str:
        members = repr([(sample.key, sample.members) for sample in self._samples])
        return sampled(fingerprint(*self.paths, members.encode()), self.paths)

    def read(self, numbers: Sequence[int]) -> list[Record]:
        check_numbers(numbers, len(self))
        return in_parallel(self._read, numbers, remote=is_remote(self.paths[0]))

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns records without their images."""
        check_numbers(numbers, len(self))
        return in_parallel(self._text, numbers, remote=is_remote(self.paths[0]))

    def _read(self, number: int) -> Record:
        sample = self._samples[number]
        if sample.problem:
            raise CorruptRecord(sample.problem)
        image = next(extension for extension in _IMAGES if extension in sample.members)
        held = self._together(sample, image)
        encoded = self._bytes(sample, image, MAX_IMAGE_BYTES, held)
        return dataclasses.replace(self._text(number, held), image=encoded)

    def _together(self, sample: _Sample, image: str) -> dict[str, bytes]:
        """Returns image and texts from one read, if they are neighbours; {} if they are not."""
        wanted = {name: sample.members[name] for name in (image, *_TEXTS) if name in sample.members}
        first = min(offset for offset, _ in wanted.values())
        length = max(offset + size for offset, size in wanted.values()) - first
        sizes = [size for _, size in wanted.values()]
        if length > sum(sizes) + _MAX_GAP or max(sizes) > MAX_IMAGE_BYTES:
            return {}
        (data,) = read_parts(self.paths[sample.shard], first, length)
        return {name: data[at - first :][:size] for name, (at, size) in wanted.items()}

    def _text(self, number: int, held: Mapping[str, bytes] = _NOTHING) -> Record:
        sample = self._samples[number]
        if sample.problem:
            raise CorruptRecord(sample.problem)
        captions, prefix = self._captions(sample, held)
        image_id = self._ids.get((sample.shard, sample.key), sample.key)
        return Record(b"", captions, image_id, prefix)

    def _captions(
        self, sample: _Sample, held: Mapping[str, bytes]
    ) -> tuple[tuple[str, ...], str | None]:
        """Returns captions and prompt, from the first member that has captions."""
        prefix = None
        where = f"{self.paths[sample.shard]}, {sample.key}"
        try:
            for extension in _TEXTS:
                if extension not in sample.members:
                    continue
                data = self._bytes(sample, extension, _MAX_TEXT_BYTES, held)
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

    def _bytes(
        self, sample: _Sample, extension: str, most: int, held: Mapping[str, bytes]
    ) -> bytes:
        offset, size = sample.members[extension]
        where = f"{self.paths[sample.shard]}, {sample.key}.{extension}"
        if size > most:
            raise ValueError(f"{where} has {size:,} bytes, expected at most {most:,}")
        if extension in held:
            data = held[extension]
        else:
            (data,) = read_parts(self.paths[sample.shard], offset, size)
        if len(data) < size:
            raise ValueError(f"{where}: the tar file is truncated; copy it again")
        return data


def _sample(path: str, shard: int, key: str, members: dict[str, tuple[int, int]]) -> _Sample:
    if leads_out(key):
        problem = "its name leads out of the archive: make it again with relative names"
        return _Sample(shard, key, {}, f"{path}, {key}: {problem}")
    return _Sample(shard, key, members)


def _is_text_alone(sample: _Sample) -> bool:
    return not sample.members.keys() & {*_IMAGES} and bool(sample.members.keys() & {*_TEXTS})
