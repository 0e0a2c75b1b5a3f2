"""The image files below a folder, found by the names that tables give them.

    images = ImageFolder("flickr8k/Images")
    images.find("IMG_1.JPG")            # "img_1.jpg": what the folder has, or None

Tables and folders often come from different systems, so their names may differ in case, Unicode
form, blanks, separators, percent signs, leading folders or suffixes. One rule serves all forms of
data: the exact name first, then looser comparisons, each only where it names one file.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

import tensorflow as tf

from paligemma_lib.runtime.atomic import is_remote

SHOWN = 3  # names in a message


class ImageFolder:
    """The files below a folder, local or remote, listed once.

    A name is only ever matched with a listed file, so no name leads out of the folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @functools.cached_property
    def files(self) -> list[str]:
        """Paths below the folder, with "/" between their parts, sorted; hidden files are left out.

        Raises FileNotFoundError where the folder is not there.
        """
        found = sorted(
            _remote_files(self.folder) if is_remote(self.folder) else _files(self.folder)
        )
        if not found:
            raise FileNotFoundError(f"{self.folder} is no folder with images")
        return found

    def find(self, name: str) -> str | None:
        """Returns the file of that name, relative to the folder; None where there is not one."""
        exact, *indices = self._indices
        if name in exact:
            return name
        if os.path.isabs(name) and (inside := _below(name, self.folder)) in exact:
            return inside
        normal = _normal(name)
        # From the most specific to the least: the whole path, then without leading folders, then
        # without its suffix. A key that several files share names none of them.
        for index in indices:
            parts = normal.split("/")
            for first in range(len(parts)):
                key = "/".join(parts[first:])
                if (found := index.get(key, "")) or found is None:
                    return found
        return None

    @functools.cached_property
    def _indices(self) -> Sequence[dict[str, str | None]]:
        paths = [(_normal(file), file) for file in self.files]
        return (
            dict.fromkeys(self.files),
            _unique((key, file) for key, file in paths),
            _unique((key.rpartition("/")[2], file) for key, file in paths),
            _unique((key.rpartition("/")[2].rpartition(".")[0], file) for key, file in paths),
        )


def differing(names: Iterable[tuple[str, str]]) -> str:
    """What to say of names that were not matched exactly: how many, with some examples; or ""."""
    pairs = [(name, file) for name, file in names if name != file]
    if not pairs:
        return ""
    shown = ", ".join(f"{name!r} is {file!r}" for name, file in pairs[:SHOWN])
    return f"{len(pairs):,} names were matched loosely: {shown}{', ...' * (len(pairs) > SHOWN)}"


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    """The value of each key; None where it has several."""
    found: dict[str, str | None] = {}
    for key, value in pairs:
        found[key] = value if found.get(key, value) == value else None
    return found


def _normal(name: str) -> str:
    """NFC, case-folded, unquoted, with "/" as the only separator and no blanks at the ends."""
    name = unicodedata.normalize("NFC", unquote(name)).casefold().replace("\\", "/")
    parts = [part.strip() for part in re.split("/+", name)]
    return "/".join(part for part in parts if part not in ("", "."))


def _below(path: str, folder: str) -> str:
    relative = os.path.relpath(path, os.path.abspath(folder))
    return relative.replace(os.sep, "/")


def _files(folder: str) -> Iterable[str]:
    for place, folders, names in os.walk(folder):  # links to folders are not followed: no loops
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
