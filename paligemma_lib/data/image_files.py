"""Makes a source, without captions, of image files, folders and patterns.

source = from_image_files(["photo.jpg", "Images/", "more/*.png"])
len(source), source.read([0])[0].image
"""

from __future__ import annotations

import dataclasses
import glob
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from paligemma_lib.data.content_samples import sampled_images
from paligemma_lib.data.encoded import SUFFIXES
from paligemma_lib.data.files import in_parallel, read_whole
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.image_bounds import MAX_IMAGE_BYTES
from paligemma_lib.data.outside import ANYWHERE, check_link
from paligemma_lib.data.sources import Record, Source
from paligemma_lib.data.sources.data_path import check_path
from paligemma_lib.data.sources.image_folder import files_below
from paligemma_lib.data.sources.protocol import check_numbers

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ImageFiles(Source):
    """Image files without captions.

    Attributes:
      names: image ids.
      paths: paths of the files.
      folders: for each file, the folder that a link must not lead out of; "": it was named itself,
        and is followed. Empty: all links are followed.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    folders: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, number: int) -> str:
        return self.paths[number]

    def fingerprint(self) -> str:
        sizes = fingerprint(*self.names, *(os.path.getsize(path) for path in self.paths))
        return sampled_images(sizes, self.paths, within=ANYWHERE)

    def read(self, numbers: Sequence[int]) -> list[Record]:
        check_numbers(numbers, len(self))
        return in_parallel(self._read, numbers, remote=False)

    def _read(self, number: int) -> Record:
        if self.folders and (folder := self.folders[number]):
            check_link(self.paths[number], (folder,))
        return Record(read_whole(self.paths[number], MAX_IMAGE_BYTES), (), self.names[number])


def from_image_files(places: Sequence[str], *, allow_outside: bool = False) -> ImageFiles:
    """Returns a source of local image files, in the given order and without duplicates.

    The image id of an image in a folder is its path below that folder, of any other image its path
    as given. Where folders have images of the same names, the ids of these are their paths, too.

    Args:
      places: image files, folders, which are searched recursively, and patterns such as `in/*.jpg`.
      allow_outside: whether links in a folder may lead out of it.

    Raises:
      FileNotFoundError: a place does not exist, or has no images.
      ValueError: two images have the same id in spite of this; or, when it is read, an image is a
        link that leads out of its folder.
    """
    found: dict[str, tuple[str, str]] = {}  # path -> name, folder
    for place in places:
        check_path(place)
        if os.path.isdir(place):
            base = str(Path(place))
            below = sorted(filter(_is_image, files_below(place)))
            here = {name if base == "." else os.path.join(base, name): name for name in below}
        elif os.path.lexists(place):
            here = {place: place}
        else:
            matches = sorted(filter(_is_image, glob.glob(place)))
            here = {path: path for path in matches if not os.path.isdir(path)}
        if not here:
            raise FileNotFoundError(_nothing(place))
        folder = place if os.path.isdir(place) else ""
        found |= {path: (name, folder) for path, name in here.items() if path not in found}
    counts = Counter(name for name, _ in found.values())
    ids = {path: name if counts[name] == 1 else path for path, (name, _) in found.items()}
    if alike := sum(count for count in counts.values() if count > 1):
        _log.info("%d images share names, so they are named by their paths", alike)
    _check_distinct(ids)
    folders = () if allow_outside else tuple(folder for _, folder in found.values())
    return ImageFiles(tuple(ids.values()), tuple(found), folders)


def _nothing(place: str) -> str:
    expected = (
        f"expected an image file, a folder with {', '.join(SUFFIXES)} files, or a pattern such as "
        "'images/*.jpg'"
    )
    what = "has no images" if os.path.isdir(place) or glob.has_magic(place) else "does not exist"
    return f"{place} {what}: {expected}"


def _check_distinct(ids: dict[str, str]) -> None:
    first: dict[str, str] = {}
    for path, name in ids.items():
        if (other := first.setdefault(name, path)) != path:
            raise ValueError(
                f"{other} and {path} have the same image id, {name}: give the folders one by one"
            )


def _is_image(path: str) -> bool:
    # Hidden files are not images: macOS leaves its metadata of 1.jpg in ._1.jpg. What is no regular
    # file, such as a broken link, counts as an image that cannot be read: it is not left out.
    return path.lower().endswith(SUFFIXES) and os.path.basename(path)[0] != "."
