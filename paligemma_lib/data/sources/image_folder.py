"""Finds the image files in a folder by the names that tables give them.

    images = ImageFolder("flickr8k/Images")
    images.find("IMG_1.JPG")            # "img_1.jpg": what the folder has, or None

Tables and folders often come from different systems. So their names may differ in case, Unicode
form, whitespace, separators, percent encoding, leading folders or suffixes. All forms of data have
the same rule: the exact name comes first, then looser comparisons. An ambiguous name has no match.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

import tensorflow as tf

from paligemma_lib.data.encoded import SUFFIXES
from paligemma_lib.data.files import check_scheme
from paligemma_lib.runtime.atomic import is_remote

SHOWN = 3  # names in a message


class NameIndex:
    """Names of images, to be found by names that may differ in how they are written.

    Attributes:
      names: distinct paths with "/" as separator.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find(self, name: str) -> str | None:
        """Returns the one of the names that is meant; None if no single one matches."""
        if name in self.exact:
            return name
        normal = normalized(name)
        # Compared with the whole paths of files, then with their base names, then with these
        # without suffix. Each time, leading folders of the name are dropped one by one: "a/b/1.jpg"
        # gives the keys "a/b/1.jpg", "b/1.jpg", "1.jpg". The index has None for a key of several
        # files, which ends the search: a looser comparison could only guess.
        for index in self._indices:
            parts = normal.split("/")
            for first in range(len(parts)):
                key = "/".join(parts[first:])
                if (found := index.get(key, "")) or found is None:
                    return found
        return None

    @functools.cached_property
    def exact(self) -> frozenset[str]:
        """The names as a set."""
        return frozenset(self.names)

    # Made for the first name that does not match exactly. For a million names it takes seconds.
    @functools.cached_property
    def _indices(self) -> Sequence[dict[str, str | None]]:
        paths = [(normalized(name), name) for name in self.names]
        return (
            _unique((key, file) for key, file in paths),
            _unique((key.rpartition("/")[2], file) for key, file in paths),
            _unique((key.rpartition("/")[2].rpartition(".")[0], file) for key, file in paths),
        )


class ImageFolder:
    """Files below a local or remote folder, which is listed once.

    A name matches only files of this list, so no name leads out of the folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @functools.cached_property
    def files(self) -> list[str]:
        """Sorted paths below the folder, with "/" as separator, without hidden files.

        Raises:
          FileNotFoundError: the folder does not exist, or has no files.
        """
        check_scheme(self.folder)
        found = sorted(
            _remote_files(self.folder) if is_remote(self.folder) else _files(self.folder)
        )
        if not found:
            raise FileNotFoundError(f"{self.folder} is not a folder with images")
        return found

    def find(self, name: str) -> str | None:
        """Returns the path of the named file below the folder; None if no single file matches."""
        if os.path.isabs(name):
            inside = _below(name, self.folder)
            name = inside if inside in self.exact else name
        return self._index.find(name)

    @property
    def exact(self) -> frozenset[str]:
        """Paths of the files as a set."""
        return self._index.exact

    @functools.cached_property
    def _index(self) -> NameIndex:
        return NameIndex(self.files)


def differing(names: Iterable[tuple[str, str]]) -> str:
    """Returns a message about the names that matched inexactly, with examples; "" if none did."""
    pairs = [(name, file) for name, file in names if name != file]
    if not pairs:
        return ""
    shown = ", ".join(f"{name!r} is {file!r}" for name, file in pairs[:SHOWN])
    return f"{len(pairs):,} names were matched loosely: {shown}{', ...' * (len(pairs) > SHOWN)}"


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


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    """Returns the value of each key, or None for a key with several different values."""
    found: dict[str, str | None] = {}
    for key, value in pairs:
        found[key] = value if found.get(key, value) == value else None
    return found


def normalized(name: str) -> str:
    """Normalizes a path: percent-decoded, NFC, case-folded, "/" as separator, parts stripped."""
    # macOS may store names decomposed (NFD): "e" and an accent, where tables have one character.
    name = unicodedata.normalize("NFC", unquote(name)).casefold().replace("\\", "/")
    parts = [part.strip() for part in re.split("/+", name)]
    return "/".join(part for part in parts if part not in ("", "."))


def _below(path: str, folder: str) -> str:
    relative = os.path.relpath(path, os.path.abspath(folder))
    return relative.replace(os.sep, "/")


def _files(folder: str) -> Iterable[str]:
    for place, folders, names in os.walk(folder):  # does not follow links to folders, so no loops
        # Assigned in place, so that os.walk skips the removed folders. Archives made on macOS have
        # a folder __MACOSX with metadata in files that are named like the images.
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        below = os.path.relpath(place, folder).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        yield from (f"{prefix}{name}" for name in names if not name.startswith("."))


def _remote_files(folder: str) -> Iterable[str]:
    root = folder.rstrip("/")
    for place, _, names in tf.io.gfile.walk(root):
        below = place[len(root) :].strip("/")
        prefix = f"{below}/" if below else ""
        yield from (f"{prefix}{name}" for name in names if not name.startswith("."))
