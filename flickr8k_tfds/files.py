"""Read-only trees of untrusted files: a folder, or a zip read in place.

Both list relative names and read one file at a time, never more than `limit` bytes of it:

    tree = open_tree(Path("archive.zip"))
    for name in tree.names():
        data = tree.read(name, limit=MAX_PICTURE_BYTES)
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MAX_PICTURE_BYTES = 64 << 20
MAX_TABLE_BYTES = 256 << 20


class DatasetError(ValueError):
    """The data set cannot be built from what was found; the message says why and the cure."""


class UnreadableFile(Exception):
    """One file cannot be read; the message says why. The others may be fine."""


def is_escape(name: str) -> bool:
    """Whether a name taken from a table or a zip points outside its own folder."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or name[1:2] == ":"


class Folder:
    """The files of a folder, down to three levels: `x`, `a/x`, `a/b/x`."""

    def __init__(self, root: Path):
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def names(self) -> Iterator[str]:
        """Relative names with forward slashes. Raises DatasetError for an unreadable folder."""
        yield from self._walk("", levels=3)

    def _walk(self, prefix: str, levels: int) -> Iterator[str]:
        folder = self.root / prefix
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except PermissionError as error:
            raise DatasetError(
                f"{folder} cannot be listed: permission denied. "
                f"Make it readable (chmod -R a+rX {folder}) or copy it."
            ) from error
        for entry in found:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield prefix + entry.name
            elif levels > 1:
                yield from self._walk(f"{prefix}{entry.name}/", levels - 1)

    def read(self, name: str, limit: int) -> bytes:
        """The file's bytes. Raises UnreadableFile, also for more than `limit` bytes."""
        try:
            # Opening a named pipe would wait for ever.
            if not stat.S_ISREG(os.stat(self.root / name).st_mode):
                raise UnreadableFile("not a regular file")
            with open(self.root / name, "rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise UnreadableFile(f"cannot be read: {error.strerror}") from error
        return _bounded(data, limit)


class Zip:
    """The members of a zip, read in place; nothing is unpacked to disk."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise DatasetError(
                f"{path} is not a whole zip file ({error}). A download that broke off looks like "
                "this: fetch it again, or check it with `unzip -t`."
            ) from error
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
        for member in self._zip.namelist():
            if is_escape(member):
                raise DatasetError(
                    f"{path} holds a member named {member!r}, which points outside the archive. "
                    "Expected plain relative names: do not use this file."
                )

    def __str__(self) -> str:
        return str(self.path)

    def names(self) -> Iterator[str]:
        """Relative names with forward slashes, without folders and macOS's side files."""
        for member in self._zip.infolist():
            path = PurePosixPath(member.filename)
            if not (member.is_dir() or path.name.startswith(".") or path.parts[0] == "__MACOSX"):
                yield member.filename

    def read(self, name: str, limit: int) -> bytes:
        """The member's bytes. Raises UnreadableFile, also for more than `limit` bytes."""
        # The declared size spares inflating a bomb; the bounded read holds where it lies.
        if self._zip.getinfo(name).file_size > limit:
            raise UnreadableFile(_too_large(limit))
        try:
            with self._zip.open(name) as file:
                data = file.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise UnreadableFile(f"damaged in the zip: {error}") from error
        except (NotImplementedError, RuntimeError) as error:  # compression method, password
            raise UnreadableFile(f"cannot be unpacked: {error}") from error
        return _bounded(data, limit)


Tree = Folder | Zip


def open_tree(path: Path) -> Tree:
    """A folder or a zip as a tree. Raises DatasetError for anything else."""
    if path.is_dir():
        return Folder(path)
    if path.is_file() and path.suffix.lower() == ".zip":
        return Zip(path)
    what = "is neither a folder nor a .zip file" if path.exists() else "does not exist"
    raise DatasetError(f"{path} {what}. Pass --manual_dir a folder or a zip with the data set.")


def _bounded(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise UnreadableFile(_too_large(limit))
    return data


def _too_large(limit: int) -> str:
    return f"larger than the limit of {limit >> 20} MiB"
