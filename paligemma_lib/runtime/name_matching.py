"""Finds names of images by names that may be written in another way.

    NameIndex(["img_1.jpg", "img_2.jpg"]).find("Images/IMG_1.JPG")        # "img_1.jpg"

Tables and folders often come from different systems. So their names may differ in case, Unicode
form, whitespace, separators, percent encoding, leading folders or suffixes. All forms of data, and
files of captions, have the same rule: the exact name comes first, then looser comparisons. An
ambiguous name has no match.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

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


def differing(names: Iterable[tuple[str, str]]) -> str:
    """Returns a message about the names that matched inexactly, with examples; "" if none did."""
    pairs = [(name, file) for name, file in names if name != file]
    if not pairs:
        return ""
    shown = ", ".join(f"{name!r} is {file!r}" for name, file in pairs[:SHOWN])
    return f"{len(pairs):,} names were matched loosely: {shown}{', ...' * (len(pairs) > SHOWN)}"


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
