"""Reads a folder of images with a text file beside each image: beach.jpg and beach.txt.

source = SidecarSource("photos")

Each line of a text file is a caption. An image without a text file, or with an empty one, has no
captions.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence

from paligemma_lib.data.content_samples import MAX_SMALL, if_whole, sampled_images, spread
from paligemma_lib.data.encoded import SUFFIXES
from paligemma_lib.data.files import in_parallel, join, read_whole
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.data.outside import check_link
from paligemma_lib.data.sources.image_folder import ImageFolder
from paligemma_lib.data.sources.protocol import Record, check_numbers
from paligemma_lib.data.text import lines_of
from paligemma_lib.runtime.atomic import is_remote

TEXT_SUFFIXES = (".txt", ".caption")
_MAX_TEXT_BYTES = 1 << 20
_KEPT_TEXTS = 1 << 16


@dataclasses.dataclass(frozen=True)
class SidecarSource:
    """Images of a folder, with captions from text files of the same names.

    Attributes:
      folder: local or remote folder, which is searched recursively.
      within: folders, besides this one, that links in it may lead into.
    """

    folder: str
    within: tuple[str, ...] = ()

    @functools.cached_property
    def files(self) -> list[str]:
        """Paths of all files, below the folder."""
        return ImageFolder(self.folder).files

    @functools.cached_property
    def _pairs(self) -> list[tuple[str, str]]:
        """Paths of each image and of its text file, "" if it has none."""
        named = {file: file.lower() for file in self.files}
        texts = {
            file.rpartition(".")[0]: file for file in named if named[file].endswith(TEXT_SUFFIXES)
        }
        images = [file for file in named if named[file].endswith(SUFFIXES)]
        return [(image, texts.get(image.rpartition(".")[0], "")) for image in images]

    def __len__(self) -> int:
        return len(self._pairs)

    def where(self, number: int) -> str:
        return join(self.folder, self._pairs[number][0])

    def has_texts(self) -> bool:
        """Returns whether any image has a text file."""
        return any(text for _, text in self._pairs)

    def images_of_records(self) -> list[str]:
        """Returns the name of each record's image without reading it."""
        return [image for image, _ in self._pairs]

    def fingerprint(self) -> str:
        pairs = (f"{image} {text}" for image, text in self._pairs)
        names = fingerprint(*(pair.encode(errors="surrogateescape") for pair in pairs))
        numbers = spread(range(len(self)), MAX_SMALL)
        records = in_parallel(if_whole(self._text), numbers, remote=is_remote(self.folder))
        texts = [record and record.captions for record in records]
        paths = [join(self.folder, image) for image, _ in self._pairs]
        within = (self.folder, *self.within)
        return sampled_images(names, paths, within=within, texts=json.dumps(texts).encode())

    def read(self, numbers: Sequence[int]) -> list[Record]:
        check_numbers(numbers, len(self))
        return in_parallel(self._read, numbers, remote=is_remote(self.folder))

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Returns records without their images."""
        check_numbers(numbers, len(self))
        return in_parallel(self._text, numbers, remote=is_remote(self.folder))

    def _read(self, number: int) -> Record:
        image = self._path(self._pairs[number][0])
        return dataclasses.replace(self._text(number), image=read_whole(image, MAX_IMAGE_BYTES))

    def _path(self, file: str) -> str:
        path = join(self.folder, file)
        check_link(path, (self.folder, *self.within))
        return path

    @functools.cached_property
    def _text(self) -> Callable[[int], Record]:
        """Function that returns a record without its image.

        Cached, so that from the second epoch on, an image costs one opening of a file, not two.
        """
        return functools.lru_cache(_KEPT_TEXTS)(self._text_of)

    def _text_of(self, number: int) -> Record:
        image, text = self._pairs[number]
        lines: list[str] = []
        if text:
            path = self._path(text)
            try:
                lines = lines_of(read_whole(path, _MAX_TEXT_BYTES))
            except ValueError as error:
                raise ValueError(f"{path}, {error}") from error
        captions = tuple(line.strip() for line in lines if line.strip())
        return Record(b"", captions, image)
