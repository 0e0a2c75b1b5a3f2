"""Makes a source, without captions, of image files, folders and patterns.

source = from_image_files(["photo.jpg", "Images/", "more/*.png"])
len(source), source.read([0])[0].image
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from paligemma_lib.data.encoded import SUFFIXES
from paligemma_lib.data.files import in_parallel, read_whole
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.data.sources import Record, Source


@dataclasses.dataclass(frozen=True)
class ImageFiles(Source):
    """Image files without captions.

    Attributes:
      names: image ids.
      paths: paths of the files.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, number: int) -> str:
        return self.paths[number]

    def fingerprint(self) -> str:
        return fingerprint(*self.names, *(os.path.getsize(path) for path in self.paths))

    def read(self, numbers: Sequence[int]) -> list[Record]:
        return in_parallel(self._read, numbers, remote=False)

    def _read(self, number: int) -> Record:
        return Record(read_whole(self.paths[number], MAX_IMAGE_BYTES), (), self.names[number])


def from_image_files(places: Sequence[str]) -> ImageFiles:
    """Returns a source of local image files, in the given order and without duplicates.

    The image id of an image in a folder is its path below that folder, of any other image its path
    as given.

    Args:
      places: image files, folders, which are searched recursively, and patterns such as `in/*.jpg`.

    Raises:
      FileNotFoundError: a place has no images.
    """
    found: dict[str, str] = {}  # path -> name
    for place in places:
        if os.path.isdir(place):
            below = sorted(filter(_is_image, Path(place).rglob("*")))
            names = {str(path): path.relative_to(place).as_posix() for path in below}
        elif os.path.lexists(place):
            names = {place: place}
        else:
            names = {path: path for path in sorted(glob.glob(place)) if _is_image(Path(path))}
        if not names:
            raise FileNotFoundError(
                f"{place} has no images: expected an image file, a folder with "
                f"{', '.join(SUFFIXES)} files, or a pattern such as 'images/*.jpg'"
            )
        found |= {path: name for path, name in names.items() if path not in found}
    return ImageFiles(tuple(found.values()), tuple(found))


def _is_image(path: Path) -> bool:
    # Hidden files are not images: macOS leaves its metadata of 1.jpg in ._1.jpg. What is no regular
    # file, such as a broken link, counts as an image that cannot be read: it is not left out.
    return path.suffix.lower() in SUFFIXES and path.name[0] != "." and not path.is_dir()
