"""Reads trees of untrusted files: folders, and zips without unpacking them.

Both list relative names and read one file at a time, never more than `limit` bytes of it:

    tree = open_tree(Path("archive.zip"))
    for name in tree.names():
        data = tree.read(name, limit=MAX_IMAGE_BYTES)
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MAX_IMAGE_BYTES = 64 << 20
MAX_TABLE_BYTES = 64 << 20


class DatasetError(ValueError):
    """The data set cannot be built from the given files; the message says why and what to do."""


class UnreadableFile(Exception):
    """One file cannot be read; the message says why. Other files may be readable."""


def is_escape(name: str) -> bool:
    """Whether a name from a table or a zip points outside its own folder."""
    parts = name.replace("\\", "/").split("/")
    drive = re.match(r"[A-Za-z]:[\\/]", name)
    return name.startswith(("/", "\\")) or ".." in parts or drive is not None


class Folder:
    """The files of a folder, down to three levels: `x`, `a/x`, `a/b/x`.

    Attributes:
      closed: folders that `names` found but could not list.
    """

    def __init__(self, root: Path):
        self.root = root
        self.closed: list[Path] = []

    def __str__(self) -> str:
        return str(self.root)

    def names(self) -> Iterator[str]:
        """Yields relative names with forward slashes, without hidden files."""
        yield from self._walk("", levels=3)

    def _walk(self, prefix: str, levels: int) -> Iterator[str]:
        try:
            with os.scandir(self.root / prefix) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            self.closed.append(self.root / prefix)
            return
        for entry in found:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                yield prefix + entry.name
            elif levels > 1:
                yield from self._walk(f"{prefix}{entry.name}/", levels - 1)

    def read(self, name: str, limit: int) -> bytes:
        """Returns the file's bytes. Raises UnreadableFile, also for more than `limit` bytes."""
        try:
            # Opening a named pipe would block forever, if it were not opened without blocking.
            with open(self.root / name, "rb", opener=_without_blocking) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise UnreadableFile("not a regular file")
                # Python allocates what it is asked to read, so `limit` bytes would take four times
                # as long. One more byte tells that the file is too large; one that grows ends here.
                data = file.read(min(found.st_size, limit + 1))
        except OSError as error:
            raise UnreadableFile(f"cannot be read: {error.strerror}") from error
        if len(data) > limit:
            raise UnreadableFile(_too_large(limit))
        return data

    def stamp(self, name: str) -> tuple[int, int]:
        """Returns the size in bytes and the time of modification; (0, 0) if there is no file."""
        try:
            found = os.stat(self.root / name)
        except OSError:
            return 0, 0
        return found.st_size, found.st_mtime_ns


class Zip:
    """The members of a zip, read directly from it; nothing is unpacked to disk.

    A copy in another process opens the zip again.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{path} is not a complete zip file ({error}). The download may be incomplete: "
                "download it again, or check it with `unzip -t`."
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

    def __reduce__(self):
        found = os.stat(self.path)
        return _reopened, (self.path, found.st_size, found.st_mtime_ns)

    def names(self) -> Iterator[str]:
        """Yields relative names with forward slashes, without folders, hidden and macOS files."""
        for member in self._zip.infolist():
            path = PurePosixPath(member.filename)
            hidden = path.name.startswith(".") or path.parts[:1] == ("__MACOSX",)
            if path.name and not member.filename.endswith("/") and not hidden:
                yield member.filename

    def read(self, name: str, limit: int) -> bytes:
        """Returns the member's bytes. Raises UnreadableFile, also for more than `limit` bytes."""
        if self._zip.getinfo(name).file_size > limit:
            raise UnreadableFile(_too_large(limit))
        try:
            return self._zip.read(name)  # zipfile inflates at most the declared size
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise UnreadableFile(f"damaged in the zip: {error}") from error
        except (NotImplementedError, RuntimeError) as error:  # unknown compression method, password
            raise UnreadableFile(f"cannot be unpacked: {error}") from error

    def stamp(self, name: str) -> tuple[int, int]:
        """Returns the size in bytes and the checksum of the member."""
        member = self._zip.getinfo(name)
        return member.file_size, member.CRC


@functools.lru_cache(8)
def _reopened(path: Path, size: int, modified: int) -> Zip:
    """Opens a zip once for all of its files that a process receives."""
    del size, modified  # they tell apart two zips that had the same path
    return Zip(path)


Tree = Folder | Zip


def open_tree(path: Path) -> Tree:
    """Opens a folder or a zip as a tree. Raises DatasetError for anything else."""
    try:
        if path.is_dir():
            return Folder(path)
        if path.is_file() and path.suffix.lower() == ".zip":
            return Zip(path)
        what = "is neither a folder nor a .zip file" if path.exists() else "does not exist"
    except OSError as error:
        what = f"cannot be accessed: {error.strerror}"
    raise DatasetError(f"{path} {what}. Pass --manual_dir a folder or a zip with the data set.")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link, or one into a folder without permission
        return False


def _without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _too_large(limit: int) -> str:
    return f"larger than the limit of {limit >> 20} MiB"
