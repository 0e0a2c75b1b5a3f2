"""Makes sources of captions in a table and images in files.

    source = TableSource("coco", "annotations/captions_val2017.json", "val2017")

All forms are read as rows of an image and a caption. All captions of the same image and prompt are
one record, even if their rows are not neighbours. See `image_folder` for how image names match.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from paligemma_lib.data.content_samples import sampled_images
from paligemma_lib.data.files import in_parallel, join, read_whole
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.data.outside import ANYWHERE, CURE, check_link, leads_out
from paligemma_lib.data.records import CorruptRecord
from paligemma_lib.data.sources.image_folder import SHOWN, ImageFolder, differing, told_apart
from paligemma_lib.data.sources.json_forms import USUAL, Columns, Row
from paligemma_lib.data.sources.protocol import Record, Source, check_numbers, unique_ids
from paligemma_lib.data.sources.table_forms import MAX_TABLE_BYTES, READERS
from paligemma_lib.data.text import cleaned
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.garbage import collector_paused

_WITH_COLUMNS = ("delimited", "parquet", "jsonl", "json")  # forms whose columns have any names

_log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    """Record without its image; `file` is None if not found, `place` is that of the first row.

    A damaged row is a record of its own, with a `problem` and the place as its name.
    """

    name: str
    image: str
    file: str | None
    captions: tuple[str, ...]
    prefix: str | None
    place: str
    problem: str


@dataclasses.dataclass(frozen=True)
class TableSource:
    """Rows of a table, grouped by image and prompt.

    Attributes:
      form: form of the table, a key of `table_forms.READERS`.
      table: path of the table, local or remote.
      images: folder of the images.
      split: name of the split to read, or several as "train+restval"; "" reads all rows.
      columns: names of columns or keys, if they are not the usual ones.
      tolerant: whether damaged rows are records that cannot be read; else they are an error.
      within: folders, besides that of the images, that links in it may lead into; ANYWHERE allows
        names that lead out of it, too.
    """

    form: str
    table: str
    images: str
    split: str = ""
    columns: Columns = USUAL
    tolerant: bool = False
    within: tuple[str, ...] = ()

    def despite_damage(self) -> Source:
        """Returns the same source, with a record for each damaged row; see `MayBeDamaged`.

        A damaged row whose split is not known counts in the table's first split.
        """
        return self.derived(tolerant=True)

    def derived(self, **changes: Any) -> TableSource:
        """Returns the same table with other options, without parsing or listing anything again."""
        other = dataclasses.replace(self, **changes)
        for name in {"_rows", "_folder"} & self.__dict__.keys():
            other.__dict__[name] = self.__dict__[name]
        return other

    @functools.cached_property
    def _entries(self) -> list[_Entry]:
        """Records without their images, in the order of their first rows.

        Raises:
          ValueError: a row cannot be used, or no image of the table is found.
        """
        rows = self._rows
        if not self.tolerant and (problem := next((r.problem for r in rows if r.problem), "")):
            raise ValueError(f"{self.table}, {problem}")
        if self.split:
            chosen, first = self.split.split("+"), _splits_in(rows)[0]
            rows = [row for row in rows if (row.split or (row.problem and first)) in chosen]
        with collector_paused():
            return self._grouped(rows)

    def _grouped(self, rows: Sequence[Row]) -> list[_Entry]:
        names = dict.fromkeys([row.image for row in rows if not row.problem])
        exact, find = self._folder.exact, self._folder.find
        files = told_apart({name: name if name in exact else find(name) for name in names})
        self._tell(files)
        # Names of one file are one image, with a record for each prompt. Dicts keep the order of
        # insertion, so the same table always gives the same numbers.
        firsts: dict[str, str] = {}
        records: dict[tuple[str, str | None, str], tuple[list[str], str]] = {}
        for image, caption, prefix, _, place, problem in rows:
            name = place if problem else firsts.setdefault(files[image] or image, image)
            captions, _ = records.setdefault((name, prefix, problem), ([], place))
            if caption is not None:
                captions.append(cleaned(caption))
        ids = unique_ids([key[0] for key in records])
        return [
            _Entry(image_id, name, files.get(name), tuple(captions), prefix, place, problem)
            for image_id, ((name, prefix, problem), (captions, place)) in zip(
                ids, records.items(), strict=True
            )
        ]

    @functools.cached_property
    def _folder(self) -> ImageFolder:
        # Listed once. On remote storage, a request per image would take far longer.
        return ImageFolder(self.images, anywhere=self.within == ANYWHERE)

    @functools.cached_property
    def _rows(self) -> list[Row]:
        free = ("image", "caption", "prompt", "split") if self.form in _WITH_COLUMNS else ()
        for name, column in self.columns._asdict().items():
            if column and name not in free:
                raise ValueError(
                    f"{self.table}: column {column!r} is named for the {name}, but in this form of "
                    "table its place is fixed. Leave the name out"
                )
        data = read_whole(self.table, MAX_TABLE_BYTES)
        try:
            with collector_paused():
                return list(READERS[self.form](data, self.columns))
        except ValueError as error:
            raise ValueError(f"{self.table}, {error}") from error

    def _tell(self, files: dict[str, str | None]) -> None:
        """Logs the names that matched loosely. Raises ValueError if no image was found."""
        missing = [name for name, file in files.items() if file is None]
        if files and len(missing) == len(files):
            wanted, there = (", ".join(map(repr, x[:SHOWN])) for x in (missing, self._folder.files))
            raise ValueError(
                f"{self.table}: none of its {len(files):,} images is in {self.images}. "
                f"The table names {wanted}; the folder has {there}. Give the folder of the images "
                f"as `images`{_outside(missing[0])}"
            )
        if told := differing((name, file) for name, file in files.items() if file is not None):
            _log.info("%s: %s", self.table, told)

    def splits(self) -> list[str]:
        """Returns the table's own splits, in the order of the table; [""] if it has none."""
        rows = self._rows
        found = _splits_in(rows)
        if "" in found and len(found) > 1:
            place = next(row.place for row in rows if not row.split and not row.problem)
            raise ValueError(f"{self.table}, {place}: the row has no split, but others do")
        return found

    def __len__(self) -> int:
        return len(self._entries)

    def where(self, number: int) -> str:
        return f"{self.table}, {self._entries[number].place}"

    def images_of_records(self) -> list[str]:
        """Returns the name of each record's image without reading it; prompts may share one."""
        return [entry.image for entry in self._entries]

    def fingerprint(self) -> str:
        # A whole table has the fingerprint that it had before entries had problems, so that runs of
        # that time can be resumed.
        rows = fingerprint(repr(self._entries).replace(", problem='')", ")").encode())
        files = dict.fromkeys([entry.file for entry in self._entries if entry.file is not None])
        paths = [join(self.images, file) for file in files]
        return sampled_images(rows, paths, within=(self.images, *self.within))

    def read(self, numbers: Sequence[int]) -> list[Record]:
        check_numbers(numbers, len(self))
        return in_parallel(self._read, numbers, remote=is_remote(self.images))

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns records without their images, but only those whose images are in the folder."""
        check_numbers(numbers, len(self))
        return [self._text(number)[0] for number in numbers]

    def _read(self, number: int) -> Record:
        record, file = self._text(number)
        path = join(self.images, file)
        check_link(path, (self.images, *self.within))
        try:
            image = read_whole(path, MAX_IMAGE_BYTES)
        except FileNotFoundError as error:  # deleted since the folder was listed
            raise self._missing(number) from error
        return dataclasses.replace(record, image=image)

    def _text(self, number: int) -> tuple[Record, str]:
        """Returns a record without its image, and the file of the image."""
        entry = self._entries[number]
        if entry.problem:
            raise CorruptRecord(f"{self.table}, {entry.problem}")
        # A missing image counts as a damaged record, so that `replace_corrupt` can replace it.
        if entry.file is None:
            raise self._missing(number)
        return Record(b"", entry.captions, entry.name, entry.prefix), entry.file

    def _missing(self, number: int) -> CorruptRecord:
        name = self._entries[number].image
        return CorruptRecord(
            f"{self.where(number)}: there is no image {name!r} in {self.images}{_outside(name)}"
        )


def _outside(name: str) -> str:
    return f". It leads out of the folder; if you trust the data, {CURE}" * leads_out(name)


def _splits_in(rows: Sequence[Row]) -> list[str]:
    return [*dict.fromkeys(row.split for row in rows if not row.problem)] or [""]


def folder_of(path: str) -> str:
    """Returns the folder of a local or remote file."""
    return path.rpartition("/")[0] or "."
