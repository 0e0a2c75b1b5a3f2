"""Finds the image files in a folder by the names that tables give them.

    images = ImageFolder("flickr8k/Images")
    images.find("IMG_1.JPG")            # "img_1.jpg": what the folder has, or None

Tables and folders often come from different systems. So their names may differ in case, Unicode
form, whitespace, separators, percent encoding, leading folders or suffixes. All forms of data have
the same rule: the exact name comes first, then looser comparisons. An ambiguous name has no match.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator

import tensorflow as tf

from paligemma_lib.data.encoded import SUFFIXES
from paligemma_lib.data.files import check_scheme, join
from paligemma_lib.data.outside import leads_out
from paligemma_lib.data.storage_errors import storage_errors
from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.name_matching import SHOWN, NameIndex, differing, normalized
from paligemma_lib.runtime.visible_text import visible

__all__ = ["SHOWN", "ImageFolder", "NameIndex", "differing", "normalized", "told_apart"]

# Archives made on macOS have a folder __MACOSX with metadata in files named like the images.
_HIDDEN = (".", "__MACOSX")

_log = logging.getLogger(__name__)


class ImageFolder:
    """Files below a local or remote folder, which is listed once.

    A name matches only files of this list, so no name leads out of the folder.

    Attributes:
      folder: the folder.
      anywhere: whether a name that leads out of a local folder may name a file there after all.
    """

    def __init__(self, folder: str, anywhere: bool = False) -> None:
        self.folder = folder
        self.anywhere = anywhere and not is_remote(folder)

    @functools.cached_property
    def files(self) -> list[str]:
        """Sorted paths below the folder, with "/" as separator, without hidden files.

        Raises:
          FileNotFoundError: the folder does not exist, or has no files.
        """
        check_scheme(self.folder)
        found = sorted(
            _remote_files(self.folder) if is_remote(self.folder) else files_below(self.folder)
        )
        if not found:
            raise FileNotFoundError(f"{self.folder} is not a folder with images")
        return found

    def find(self, name: str) -> str | None:
        """Returns the path of the named file below the folder; None if no single file matches."""
        if os.path.isabs(name):
            inside = _below(name, self.folder)
            name = inside if inside in self.exact else name
        if self.anywhere and leads_out(name) and os.path.isfile(os.path.join(self.folder, name)):
            return name
        return self._index.find(name)

    @property
    def exact(self) -> frozenset[str]:
        """Paths of the files as a set."""
        return self._index.exact

    @functools.cached_property
    def _index(self) -> NameIndex:
        return NameIndex(self.files)


def told_apart(files: dict[str, str | None]) -> dict[str, str | None]:
    """Takes a file from names that end differently, such as cats/1.jpg and dogs/1.jpg."""
    found = [file for file in files.values() if file is not None]
    if len(set(found)) == len(found):
        return files
    names: dict[str, list[str]] = {}
    for name, file in files.items():
        if file is not None:
            names.setdefault(file, []).append(name)
    lost = set()
    for file, found in names.items():
        ends = sorted((_end(name) for name in found), key=len)
        if not all(ends[-1].endswith(end) for end in ends):
            lost |= {name for name in found if not _end(file).endswith(_end(name))}
    return {name: None if name in lost else file for name, file in files.items()}


def _end(name: str) -> str:
    """Returns a name to compare ends of: normalized, without a suffix of images."""
    path, dot, suffix = normalized(name).rpartition(".")
    return f"/{path if f'.{suffix}' in SUFFIXES else path + dot + suffix}"


def _below(path: str, folder: str) -> str:
    relative = os.path.relpath(path, os.path.abspath(folder))
    return relative.replace(os.sep, "/")


def files_below(folder: str) -> Iterator[str]:
    """Yields the paths of all files below a local folder, with "/" as separator.

    Hidden files and folders are left out. Links to folders are not followed, so there are no loops.
    A folder that cannot be listed is left out with a warning.
    """

    def tell(error: OSError) -> None:
        _log.warning(
            "%s cannot be listed, and is left out: %s", visible(str(error.filename)), error.strerror
        )

    for place, folders, names in os.walk(folder, onerror=tell):
        # Assigned in place, so that os.walk skips the removed folders.
        folders[:] = [name for name in folders if not name.startswith(_HIDDEN)]
        below = os.path.relpath(place, folder).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        yield from (f"{prefix}{name}" for name in names if not name.startswith("."))


def _remote_files(folder: str) -> Iterator[str]:
    root = folder.rstrip("/")
    below = [""]  # folders still to be listed
    with storage_errors(root):
        while below:
            place = below.pop()
            names = tf.io.gfile.listdir(join(root, place))
            # gs:// ends the names of folders with a slash. To ask for each name what it is, as
            # `tf.io.gfile.walk` does, takes two requests a file, one after the other.
            told = root.startswith("gs://")
            for name in names:
                if not name or name.startswith(_HIDDEN):
                    continue
                if name.endswith("/") if told else tf.io.gfile.isdir(join(root, place + name)):
                    below.append(f"{place}{name.rstrip('/')}/")
                else:
                    yield place + name
