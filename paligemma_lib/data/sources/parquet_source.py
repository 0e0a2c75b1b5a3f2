"""Reads Parquet files of the Hugging Face Hub, and Arrow files of data sets saved to disk.

    source = ArrowSource(("data/train-00000-of-00002.parquet", ...))
    source = ArrowSource(("saved/data-00000-of-00001.arrow",))

The image column holds structs of `bytes` and `path`, or bytes. The caption column holds texts or
lists of texts. Rows with the same image and prompt are one record. A column such as `image_id` says
which rows have the same image. Without one, these are rows with the same path and bytes in their
image struct. A row that has neither id nor path is a record of its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from paligemma_lib.data.content_samples import sampled
from paligemma_lib.data.files import stat
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.records import CorruptRecord
from paligemma_lib.data.sources.arrow_columns import ColumnNames, column_names, image_in, texts_in
from paligemma_lib.data.sources.arrow_errors import UnreadableBlock, arrow_errors, unreadable
from paligemma_lib.data.sources.arrow_files import ArrowFile, distinct_values, open_all
from paligemma_lib.data.sources.arrow_rows import Group, Place, digest_of
from paligemma_lib.data.sources.block_cache import BlockCache, bytes_for_images
from paligemma_lib.data.sources.json_forms import USUAL, Columns
from paligemma_lib.data.sources.json_values import shown
from paligemma_lib.data.sources.parquet_file import ParquetFile
from paligemma_lib.data.sources.protocol import Record, Source, check_numbers, unique_ids

_TEXT_BYTES = 256 << 20  # of row groups whose texts are kept


@dataclasses.dataclass(frozen=True)
class ArrowSource:
    """Records of Parquet or local Arrow files, numbered through all files in their order.

    Attributes:
      paths: paths of the files.
      columns: names of the columns of image and captions, if they are not the usual ones.
      split: name of the split to read, from the column `split`; "" reads all rows.
      tolerant: whether rows that cannot be read are records of their own; else they are an error.
    """

    paths: tuple[str, ...]
    columns: Columns = USUAL
    split: str = ""
    tolerant: bool = False

    def despite_damage(self) -> Source:
        """Returns the same source, with a record for each row that cannot be read.

        The lost end of a file, or a file that cannot be opened, is one record; see `MayBeDamaged`.
        """
        return dataclasses.replace(self, tolerant=True)

    @functools.cached_property
    def _opened(self) -> tuple[dict[int, ParquetFile | ArrowFile], dict[int, str]]:
        """Files that can be opened, and what is wrong with each file, by index."""
        files, problems = open_all(self.paths)
        if problems and not (self.tolerant and files):
            raise ValueError(next(iter(problems.values())))
        return files, problems

    @functools.cached_property
    def _names(self) -> ColumnNames:
        files = {self.paths[number]: file.schema for number, file in self._opened[0].items()}
        return column_names(files, self.columns)

    @functools.cached_property
    def _groups(self) -> list[Group]:
        """Records in the order of their first rows. Rows of one image need not be neighbours."""
        rows = list(self._rows())
        digests = {} if self._names.image_id else self._digests(rows)
        groups: dict[tuple, list[Place]] = {}
        names: dict[tuple, str] = {}
        for place, name, prefix in rows:
            # A row whose image has no name is a record of its own.
            key = (place,) if name is None else (name, digests.get(place), prefix)
            groups.setdefault(key, []).append(place)
            names.setdefault(key, f"row {len(names)}" if name is None else name)
        ids = unique_ids(list(names.values()))
        return [Group(*each) for each in zip(ids, names.values(), groups.values(), strict=True)]

    def _rows(self) -> Iterator[tuple[Place, str | None, str | None]]:
        """Yields place, image's name and prompt of each row, without reading images.

        Damaged rows have neither name nor prompt. What is lost of a file is a row of block -1.
        """
        files, problems = self._opened
        first = self.splits()[0] if self.split else ""
        for number in range(len(self.paths)):
            file = files.get(number)
            for block in range(file.blocks if file else 0):
                for row, (name, prompt, part) in enumerate(self._block(number, block)):
                    place = Place(number, block, row)
                    if not isinstance(prompt, str | None):
                        if not self.tolerant:
                            raise ValueError(f"{self._where(place)}: {shown(prompt)} is not text")
                        name = prompt = None
                    if self.split in ("", first if part is None else part):
                        yield place, None if name in (None, "") else str(name), prompt or None
            if number in problems and self.split in ("", first):
                yield Place(number, -1, 0), None, None

    def _block(self, number: int, block: int) -> Iterator[tuple[Any, Any, Any]]:
        """Yields name, prompt and split of each row of a block; None where it cannot be read."""
        image, _, image_id, prefix, split = self._names
        file = self._opened[0][number]
        kind = file.schema.field(image).type
        has_path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
        nothing: list[Any] = [None] * file.rows(block)
        names = prompts = parts = nothing
        try:
            with arrow_errors():
                if image_id:
                    names = file.read(block, [image_id]).column(0).to_pylist()
                elif has_path:
                    names = file.field(block, image, "path")
                if prefix:
                    prompts = file.read(block, [prefix]).column(0).to_pylist()
                if split and self.split:
                    parts = file.read(block, [split]).column(0).to_pylist()
                if not len(names) == len(prompts) == len(parts) == len(nothing):
                    raise UnreadableBlock("its columns have different numbers of rows")
        except UnreadableBlock as error:
            if not self.tolerant:
                raise unreadable(self._where(Place(number, block, 0)), error) from error
            names = prompts = parts = nothing
        yield from zip(names, prompts, parts, strict=True)

    def _digests(self, rows: Sequence[tuple[Place, str | None, Any]]) -> dict[Place, bytes]:
        """Returns hashes of those images whose path occurs more than once.

        The path is often a file name without its folder. Rows that share it are the same image only
        if the bytes are the same, too. Where all paths differ, no image is read here.
        """
        counts = Counter(name for _, name, _ in rows)
        found = {}
        for place, name, _ in rows:
            if name is not None and counts[name] > 1:
                try:
                    value = self._row(place, (self._names.image,))[self._names.image]
                except CorruptRecord:
                    if not self.tolerant:
                        raise
                    value = {"bytes": repr(place).encode()}  # a record of its own
                found[place] = digest_of(value)
        return found

    def _row(self, place: Place, names: tuple[str, ...]) -> dict[str, Any]:
        """Returns one row, so that no other becomes Python objects; CorruptRecord if it cannot."""
        number, block, row = place
        try:
            with arrow_errors():
                file = self._opened[0][number]
                if isinstance(file, ArrowFile):  # mapped, so that it needs no memory of its own
                    return file.row(block, row, names).to_pylist()[0]
                return _cache(self._names.image in names).row(file, block, row, names)
        except UnreadableBlock as error:
            raise unreadable(self._where(place), error) from error

    def __len__(self) -> int:
        return len(self._groups)

    def where(self, number: int) -> str:
        return self._where(self._groups[number].places[0])

    def _where(self, place: Place) -> str:
        if place.block < 0:
            return f"{self.paths[place.file]}, its lost end"
        return f"{self.paths[place.file]}, row {place.row} of row group {place.block}"

    def splits(self) -> list[str]:
        """Returns the splits in the column `split`, in the order of the rows; [""] without it."""
        if not (split := self._names.split):
            return [""]
        parts = distinct_values(self._opened[0].values(), split)
        if not all(isinstance(part, str) and part for part in parts):
            raise ValueError(f"{self.paths[0]}: the column {split} has rows without a split")
        return parts or [""]

    def images_of_records(self) -> list[str]:
        """Returns the name of each record's image without reading it; prompts may share one."""
        return [group.image for group in self._groups]

    def fingerprint(self) -> str:
        sizes = [size for size, _ in map(stat, self.paths)]
        # Written as before 2026-11-29, so that earlier runs go on.
        names = f"(_Names{str(self._names).partition('Names')[2]}, {self.split!r})".encode()
        lengths = np.array([len(group.places) for group in self._groups])
        return sampled(fingerprint(*self.paths, *sizes, names, lengths), self.paths)

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return self._in_file_order(self._read, numbers)

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns records without their images."""
        return self._in_file_order(self._text, numbers)

    def _in_file_order(
        self, read: Callable[[Group, str], Record], numbers: Sequence[int]
    ) -> list[Record]:
        check_numbers(numbers, len(self))
        # Records of one block are read one after the other, so that it is decoded once.
        ordered = sorted(set(numbers), key=lambda each: self._groups[each].places[0])
        found = {each: read(self._groups[each], self.where(each)) for each in ordered}
        return [found[each] for each in numbers]

    def _read(self, group: Group, where: str) -> Record:
        """Reads the image from the first row, as all rows of a record have the same."""
        record = self._text(group, where)
        value = self._row(group.places[0], (self._names.image,))[self._names.image]
        return dataclasses.replace(record, image=image_in(value, where))

    def _text(self, group: Group, where: str) -> Record:
        _, captions, _, prefix, _ = self._names
        columns, rows = (*captions, *filter(None, [prefix])), []
        for place in group.places:
            if place.block < 0:
                raise CorruptRecord(self._opened[1][place.file])
            rows.append(self._row(place, columns))
        said = [text for each in rows for name in captions for text in texts_in(each[name], where)]
        if not isinstance(prompt := rows[0].get(prefix) or None, str | None):
            raise ValueError(f"{where}: {shown(prompt)} is not text")
        return Record(b"", tuple(said), group.image_id, prompt)


# Of all sources together. Texts are small, and compressed in less time than a call takes.
@functools.cache
def _cache(images: bool) -> BlockCache:
    return BlockCache(bytes_for_images()) if images else BlockCache(_TEXT_BYTES, eager=True)
