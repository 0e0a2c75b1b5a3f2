"""Pictures in files and folders, as a source of records without captions.

source = from_pictures(["photo.jpg", "Images/", "more/*.png"])
len(source), source.read([0])[0].image
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from paligemma_lib.data.files import in_parallel, read_whole
from paligemma_lib.data.sources import Record, Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
MAX_PICTURE_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class PictureFiles(Source):
    """Pictures without captions: their names, and their paths."""

    names: tuple[str, ...]
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, number: int) -> str:
        return self.paths[number]

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return in_parallel(self._read, numbers, remote=False)

    def _read(self, number: int) -> Record:
        return Record(read_whole(self.paths[number], MAX_PICTURE_BYTES), (), self.names[number])


def from_pictures(places: Sequence[str]) -> PictureFiles:
    """Pictures in local files, in folders and all below them, and by patterns such as `in/*.jpg`.

    A picture of a folder is named by its path below that folder, another one as it was given.

    Raises:
      FileNotFoundError: a place has no pictures.
    """
    found: dict[str, str] = {}  # path -> name
    for place in places:
        if os.path.isdir(place):
            below = sorted(filter(_is_picture, Path(place).rglob("*")))
            names = {str(path): path.relative_to(place).as_posix() for path in below}
        elif os.path.isfile(place):
            names = {place: place}
        else:
            names = {path: path for path in sorted(glob.glob(place)) if _is_picture(Path(path))}
        if not names:
            raise FileNotFoundError(
                f"{place} has no pictures: expected a picture file, a folder with "
                f"{', '.join(SUFFIXES)} in it, or a pattern such as 'pictures/*.jpg'"
            )
        found |= {path: name for path, name in names.items() if path not in found}
    return PictureFiles(tuple(found.values()), tuple(found))


def _is_picture(path: Path) -> bool:
    # Hidden files are none: macOS leaves a ._1.jpg beside 1.jpg.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
