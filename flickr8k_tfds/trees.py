"""Reads trees of untrusted files: folders, and zips without unpacking them.

Both list relative names and read one file at a time, never more than `limit` bytes of it:

    tree = open_tree(Path("archive.zip"))
    for name in tree.names():
        data = tree.read(name, limit=MAX_IMAGE_BYTES)
"""

from __future__ import annotations

import errno
import functools
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MAX_IMAGE_BYTES = 64 << 20
MAX_TABLE_BYTES = 64 << 20


class DatasetError(ValueError):
    """The data set cannot be built from the given files; the message says why and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(visible, message.split("\n"))))


OUTSIDE_CURE = 'if you trust it, build with --config=\'{"name": "mine", "allow_outside": true}\''


class UnreadableFile(Exception):
    """One file cannot be read; the message says why. Other files may be readable."""


def visible(text: str) -> str:
    """Returns a text in which characters that would act on a terminal are escapes."""
    if text.isprintable():  # nearly all
        return text
    return "".join(
        each
        if each.isprintable() or unicodedata.category(each) == "Zs"
        else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def is_escape(name: str) -> bool:
    """Whether a name from a table or a zip points outside its own folder."""
    parts = name.replace("\\", "/").split("/")
    drive = re.match(r"[A-Za-z]:[\\/]", name)
    return name.startswith(("/", "\\")) or ".." in parts or drive is not None


class Folder:
    """The files of a folder, down to three levels: `x`, `a/x`, `a/b/x`.

    Attributes:
      closed: folders that `names` found but could not list.
      outside: links to folders that lead out of this one, and were not followed.
    """

    def __init__(self, root: Path, *, allow_outside: bool = False):
        """Args: root: the folder; allow_outside: whether links may lead out of it."""
        self.root = root
        self.allow_outside = allow_outside
        self.closed: list[Path] = []
        self.outside: list[Path] = []

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
            elif self.leads_out(prefix + entry.name):
                self.outside.append(self.root / prefix / entry.name)
            elif levels > 1:
                yield from self._walk(f"{prefix}{entry.name}/", levels - 1)

    def leads_out(self, name: str) -> bool:
        """Returns whether a name is a link out of the folder, and must not be followed."""
        path = self.root / name
        if self.allow_outside or not path.is_symlink():
            return False
        root = os.path.realpath(self.root)
        return not os.path.realpath(path).startswith(root.rstrip(os.sep) + os.sep)

    def read(self, name: str, limit: int) -> bytes:
        """Returns the file's bytes. Raises UnreadableFile, also for more than `limit` bytes."""
        if self.leads_out(name):
            raise UnreadableFile(f"a link that leads out of {self.root}: {OUTSIDE_CURE}")
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
        except Exception as error:  # `zipfile` may raise any exception for damaged bytes
            if isinstance(error, OSError) and error.strerror and error.errno != errno.EINVAL:
                raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
            raise DatasetError(
                f"{path} is not a complete zip file ({_reason(error)}). The download may be "
                "incomplete: download it again, or check it with `unzip -t`."
            ) from error
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
        except (NotImplementedError, RuntimeError) as error:  # unknown compression method, password
            raise UnreadableFile(f"cannot be unpacked: {_reason(error)}") from error
        except Exception as error:  # each method of compression has exceptions of its own
            raise UnreadableFile(f"damaged in the zip: {_reason(error)}") from error

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


def open_tree(path: Path, *, allow_outside: bool = False) -> Tree:
    """Opens a folder or a zip as a tree. Raises DatasetError for anything else.

    Args:
      path: the folder or zip, which may be a link.
      allow_outside: whether links in the folder may lead out of it.
    """
    try:
        if path.is_dir():
            return Folder(path, allow_outside=allow_outside)
        if path.is_file() and path.suffix.lower() == ".zip":
            return Zip(path)
        what = "is neither a folder nor a .zip file" if path.exists() else "does not exist"
    except OSError as error:
        what = f"cannot be accessed: {error.strerror}"
    raise DatasetError(f"{path} {what}. Pass --manual_dir a folder or a zip with the data set.")


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link, or one into a folder without permission
        return False


def _without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _too_large(limit: int) -> str:
    return f"larger than the limit of {limit >> 20} MiB"
