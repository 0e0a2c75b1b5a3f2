"""A folder of images with a text file beside each: beach.jpg and beach.txt.

source = SidecarSource("photos")

Each line of a text file is a caption. Images without a text file, or with an empty one, are images
to be captioned.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from paligemma_lib.data.files import MAX_IMAGE_BYTES, in_parallel, join, read_whole
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.image_files import SUFFIXES
from paligemma_lib.data.sources.image_folder import ImageFolder
from paligemma_lib.data.sources.protocol import Record
from paligemma_lib.data.sources.table_forms import decoded
from paligemma_lib.runtime.atomic import is_remote

TEXT_SUFFIXES = (".txt", ".caption")
_MAX_TEXT_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class SidecarSource:
    """Images and the text files that have their names.

    Attributes:
      folder: local or remote; folders within it count too.
    """

    folder: str

    @functools.cached_property
    def _pairs(self) -> list[tuple[str, str]]:
        """Per image its path and that of its text, "" where there is none."""
        files = ImageFolder(self.folder).files
        texts = {
            file.rpartition(".")[0]: file for file in files if file.lower().endswith(TEXT_SUFFIXES)
        }
        images = [file for file in files if file.lower().endswith(SUFFIXES)]
        return [(image, texts.get(image.rpartition(".")[0], "")) for image in images]

    def __len__(self) -> int:
        return len(self._pairs)

    def where(self, number: int) -> str:
        return join(self.folder, self._pairs[number][0])

    def image_ids(self) -> list[str]:
        """The image id of each record, without reading images."""
        return [image for image, _ in self._pairs]

    def fingerprint(self) -> str:
        return fingerprint(*(f"{image} {text}".encode() for image, text in self._pairs))

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return in_parallel(self._read, numbers, remote=is_remote(self.folder))

    def _read(self, number: int) -> Record:
        image, text = self._pairs[number]
        lines: list[str] = []
        if text:
            path = join(self.folder, text)
            try:
                lines = decoded(read_whole(path, _MAX_TEXT_BYTES)).splitlines()
            except ValueError as error:
                raise ValueError(f"{path}, {error}") from error
        captions = tuple(line.strip() for line in lines if line.strip())
        return Record(read_whole(join(self.folder, image), MAX_IMAGE_BYTES), captions, image)
