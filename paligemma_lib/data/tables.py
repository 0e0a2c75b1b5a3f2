"""Sources whose captions stand in a table and whose images are files beside it.

    source = from_jsonl("gs://longcap100/data_train90.jsonl")     # image, prefix, suffix
    source = from_folder("flickr8k")                              # captions.txt and Images/

See `sources.py`. Names of images come from the table, so they may not lead out of their folder.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from paligemma_lib.data.files import MAX_IMAGE_BYTES, in_parallel, join, read_whole
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.sources import Record, Source
from paligemma_lib.runtime.atomic import is_remote

_MAX_TABLE_BYTES = 4 << 30


def from_jsonl(path: str | os.PathLike[str], *, images: str | None = None) -> Source:
    """A JSON-lines file; each line has `image` and `suffix`, and may have `prefix`.

    `image` is a file below the folder of images. `suffix` is one caption, or a list of them; a line
    without it is an image to be captioned.

    Args:
      path: local or remote.
      images: the folder of images, if not the folder of the file.
    """
    path = os.fspath(path)
    return _JsonlSource(path, images or path.rpartition("/")[0] or ".")


def from_folder(
    folder: str | os.PathLike[str], *, table: str = "captions.txt", images: str = "Images"
) -> Source:
    """A folder in Kaggle's layout: a CSV table `image,caption` and a folder of images.

    All captions of an image make one record. The table has to be sound; `flickr8k_tfds` reads
    damaged ones and says what it leaves out.

    Args:
      folder: local or remote.
      table, images: names of the table and of the folder of images.
    """
    folder = os.fspath(folder)
    return _FolderSource(join(folder, table), join(folder, images))


@dataclasses.dataclass(frozen=True)
class _JsonlSource(Source):
    path: str
    images: str

    @functools.cached_property
    def _lines(self) -> tuple[bytes, np.ndarray]:
        """The file, and where its lines start, int64[n + 1]: small, however many there are."""
        # Lines are parsed when they are read: a table of millions opens in the time that it takes
        # to find its newlines.
        data = read_whole(self.path, _MAX_TABLE_BYTES).rstrip() + b"\n"
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
        return data, np.concatenate([[0], ends])

    def __len__(self) -> int:
        return len(self._lines[1]) - 1

    def where(self, number: int) -> str:
        return f"{self.path}, line {number + 1}"

    def fingerprint(self) -> str:
        return fingerprint(self._lines[0])

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return in_parallel(self._read, numbers, remote=is_remote(self.images))

    def _read(self, number: int) -> Record:
        data, starts = self._lines
        where = self.where(number)
        try:
            line = json.loads(data[starts[number] : starts[number + 1]])
        except ValueError as error:
            raise ValueError(f"{where} is not JSON: {error}") from error
        match line:
            case {"image": str(image)}:
                suffix, prefix = line.get("suffix", []), line.get("prefix", "")
            case _:
                raise ValueError(f"{where} has no image, expected an object with its file name")
        captions = suffix if isinstance(suffix, list) else [suffix]
        if not all(isinstance(text, str) for text in [prefix, *captions]):
            raise ValueError(f"{where}: prefix and suffix have to be text")
        encoded = _read_image(self.images, image, where)
        return Record(encoded, tuple(captions), image, line.get("prefix"))


@dataclasses.dataclass(frozen=True)
class _FolderSource(Source):
    table: str
    images: str

    @functools.cached_property
    def _rows(self) -> list[tuple[str, tuple[str, ...], int]]:
        """Per image its name, its captions and the line of the first of them."""
        captions: dict[str, list[str]] = {}
        first: dict[str, int] = {}
        data = read_whole(self.table, _MAX_TABLE_BYTES)
        present = set(tf.io.gfile.listdir(self.images))
        try:
            for line, raw in enumerate(data.splitlines() or [b""], start=1):
                # Line by line: with a quote left open, csv would swallow the rows that follow.
                row = next(csv.reader([raw.decode("utf-8-sig")], strict=True), [])
                if line == 1:
                    if row != ["image", "caption"]:
                        raise ValueError(f"{row} is not the header image,caption")
                    continue
                if len(row) != 2 or not all(row):
                    raise ValueError(f"{str(row)[:200]} is not one image and one caption")
                if row[0] not in present:
                    raise ValueError(f"there is no image {row[0]!r} in {self.images}")
                captions.setdefault(row[0], []).append(row[1])
                first.setdefault(row[0], line)
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"{self.table}, line {line}: {error}. Correct it, or build flickr8k_tfds, which "
                "leaves broken rows out and lists them"
            ) from error
        return [(name, tuple(captions[name]), first[name]) for name in captions]

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, number: int) -> str:
        return f"{self.table}, line {self._rows[number][2]}"

    def fingerprint(self) -> str:
        return fingerprint(repr(self._rows).encode())

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return in_parallel(self._read, numbers, remote=is_remote(self.images))

    def _read(self, number: int) -> Record:
        name, captions, _ = self._rows[number]
        return Record(_read_image(self.images, name, self.where(number)), captions, name)


def _read_image(folder: str, name: str, where: str) -> bytes:
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or ":" in parts[0] or "\0" in name:
        raise ValueError(f"{where}: the image {name!r} would lie outside {folder}: not read")
    try:
        return read_whole(join(folder, name), MAX_IMAGE_BYTES)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where}: there is no image {name} in {folder}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
