"""Sources whose captions stand in a table and whose images are files beside it.

    source = from_jsonl("gs://longcap100/data_train90.jsonl")     # image, prefix, suffix
    source = from_folder("flickr8k")                              # captions.txt and Images/
    source = TableSource("coco", "annotations/captions_val2017.json", "val2017")

All forms become rows of an image and a caption. The captions of one image and prompt are one
record, wherever in the table they stand. Names of images are matched as `image_folder` says.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from paligemma_lib.data.files import MAX_IMAGE_BYTES, in_parallel, join, read_whole
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.records import CorruptRecord
from paligemma_lib.data.sources.image_folder import SHOWN, ImageFolder, differing
from paligemma_lib.data.sources.json_forms import USUAL, Columns
from paligemma_lib.data.sources.protocol import Record, Source
from paligemma_lib.data.sources.table_forms import READERS
from paligemma_lib.data.text import cleaned
from paligemma_lib.runtime.atomic import is_remote

MAX_TABLE_BYTES = 4 << 30

_log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    """A record without its image: the name, its file (None: not found), the first row's place."""

    name: str
    file: str | None
    captions: tuple[str, ...]
    prefix: str | None
    place: str


@dataclasses.dataclass(frozen=True)
class TableSource:
    """Rows of a table, grouped by image and prompt.

    Attributes:
      form: how the table is read, a key of `table_forms.READERS`.
      table: its file, local or remote.
      images: the folder of images.
      split: only rows of that split; "": all.
      columns: names of columns or keys, where they are not the usual ones.
    """

    form: str
    table: str
    images: str
    split: str = ""
    columns: Columns = USUAL

    @functools.cached_property
    def _entries(self) -> list[_Entry]:
        """Raises ValueError for a row that cannot be used, and where no image is found at all."""
        data = read_whole(self.table, MAX_TABLE_BYTES)
        groups: dict[tuple[str, str | None], list[str]] = {}
        places: dict[tuple[str, str | None], str] = {}
        try:
            for row in READERS[self.form](data, self.columns):
                if self.split in ("", row.split):
                    key = row.image, row.prefix
                    captions = groups.setdefault(key, [])
                    captions += [cleaned(row.caption)] if row.caption is not None else []
                    places.setdefault(key, row.place)
        except ValueError as error:
            raise ValueError(f"{self.table}, {error}") from error
        folder = ImageFolder(self.images)
        files = {name: folder.find(name) for name, _ in groups}
        self._tell(files, folder)
        counts = Counter(name for name, _ in groups)
        ordinals: Counter[str] = Counter()
        entries = []
        for (name, prefix), captions in groups.items():
            # With several prompts an image is several records, which need ids of their own.
            ordinals[name] += 1
            image_id = f"{name}#{ordinals[name]}" if counts[name] > 1 else name
            place = places[name, prefix]
            entries.append(_Entry(image_id, files[name], tuple(captions), prefix, place))
        return entries

    def _tell(self, files: dict[str, str | None], folder: ImageFolder) -> None:
        """Says which names were matched loosely; raises ValueError where none was found."""
        missing = [name for name, file in files.items() if file is None]
        if files and len(missing) == len(files):
            wanted, there = (", ".join(map(repr, x[:SHOWN])) for x in (missing, folder.files))
            raise ValueError(
                f"{self.table}: none of its {len(files):,} images is in {self.images}. It names "
                f"{wanted}; the folder has {there}. Say where the images are"
            )
        if told := differing((name, file) for name, file in files.items() if file is not None):
            _log.info("%s: %s", self.table, told)

    def splits(self) -> list[str]:
        """The table's own splits, in the order of the table; [""] where it has none."""
        data = read_whole(self.table, MAX_TABLE_BYTES)
        try:
            return [*dict.fromkeys(row.split for row in READERS[self.form](data, self.columns))]
        except ValueError as error:
            raise ValueError(f"{self.table}, {error}") from error

    def __len__(self) -> int:
        return len(self._entries)

    def where(self, number: int) -> str:
        return f"{self.table}, {self._entries[number].place}"

    def image_ids(self) -> list[str]:
        """The image id of each record, without reading images."""
        return [entry.name for entry in self._entries]

    def fingerprint(self) -> str:
        return fingerprint(repr(self._entries).encode())

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return in_parallel(self._read, numbers, remote=is_remote(self.images))

    def _read(self, number: int) -> Record:
        entry = self._entries[number]
        missing = f"{self.where(number)}: there is no image {entry.name!r} in {self.images}"
        if entry.file is None:
            raise CorruptRecord(missing)
        try:
            image = read_whole(join(self.images, entry.file), MAX_IMAGE_BYTES)
        except FileNotFoundError as error:
            raise CorruptRecord(missing) from error
        return Record(image, entry.captions, entry.name, entry.prefix)


def from_jsonl(path: str | os.PathLike[str], *, images: str | None = None) -> Source:
    """A JSON-lines file; each line has `image` and `suffix`, and may have `prefix`.

    `image` is a file below the folder of images. `suffix` is one caption, or a list of them; a line
    without it is an image to be captioned. Lines of the same image and prefix are one record.

    Args:
      path: local or remote.
      images: the folder of images, if not the folder of the file.
    """
    path = os.fspath(path)
    return TableSource("jsonl", path, images or folder_of(path))


def from_folder(
    folder: str | os.PathLike[str], *, table: str = "captions.txt", images: str = "Images"
) -> Source:
    """A folder in the layout of Kaggle's Flickr8k: a table `image,caption`, and images.

    The table is UTF-8. To train on a copy with broken rows, build `flickr8k_tfds` from it: the
    builder leaves out broken rows and says which.

    Args:
      folder: local or remote.
      table: its file, with a header and a line for each caption.
      images: its folder of images.
    """
    folder = os.fspath(folder)
    return TableSource("captions.txt", join(folder, table), join(folder, images))


def folder_of(path: str) -> str:
    """The folder of a file, local or remote."""
    return path.rpartition("/")[0] or "."
