"""Writes files and folders atomically: they appear complete or not at all.

with atomic_write(path_of("gs://bucket/run/params.npz")) as file:
    file.write(data)
with atomic_folder(Path("my-captioner")) as partial:
    (partial / "config.json").write_text("{}")
remove_partial(Path("runs"))                # what a killed process has left there

No maintained library does this: etils' paths write in place, and fsspec commits a file by moving it
from another folder, perhaps on another disk, without syncing it.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from paligemma_lib.runtime.retries import retry

_BLOCK = 16 << 20  # bytes sent at a time


def path_of(name: str | os.PathLike[str]) -> Path:
    """Returns a local path, or for a name like gs://bucket/file a remote one of the same API.

    Raises:
      ValueError: the name is an address of another kind, such as https://.
    """
    if not is_remote(name):
        return Path(name)
    from etils import epath  # uses TensorFlow if it is installed, else fsspec

    try:
        return cast(Path, epath.Path(name))
    except KeyError as error:
        raise ValueError(
            f"{os.fspath(name)} is neither a local path nor an address such as gs://bucket/file"
        ) from error


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path names a remote file system, as gs://bucket/file does."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file that replaces `path` when the block ends without an error.

    Until then the new file lies beside `path` as `.NAME.*.partial`. Whatever happens, even a power
    cut, `path` is the complete old file or the complete new one. A killed process leaves its
    partial file behind, which `remove_partial` removes.

    A remote file, from `path_of`, is first written to a temporary local file. It is uploaded when
    the block ends, with retries after transient errors, and appears when the upload is complete.
    Its folder need not exist.

    Raises:
      FileNotFoundError: the folder of a local `path` does not exist.
      IsADirectoryError: `path` is a local folder.
      OSError: the file cannot be written.
    """
    if is_remote(path):
        with tempfile.TemporaryFile() as collected:
            yield cast(BinaryIO, collected)
            try:
                retry(lambda: _send(cast(BinaryIO, collected), path), str(path))
            except Exception as error:  # each storage client has exceptions of its own
                raise OSError(f"{path} could not be written: {error}") from error
        return
    _check_parent(path)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file")
    partial = _partial(path)
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # A rename within a folder is atomic. The content was synced first: else, after a power cut,
        # the new name could stand for an empty file.
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # "No space left" names no file
        raise
    _sync(path.parent)  # the rename is on the disk only when the folder is synced


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder that is renamed to `path` when the block ends, or removed on an error.

    Until then it lies beside `path` as `.NAME.*.partial`. A killed process leaves it behind.

    Raises:
      FileNotFoundError: the parent folder of `path` does not exist.
      FileExistsError: `path` exists and is not an empty folder.
    """
    _check_parent(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} exists: remove it, or choose another name")
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        partial.rename(path)  # replaces an empty folder, but none with content
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync(path.parent)


def _send(collected: BinaryIO, path: Path) -> None:
    collected.seek(0)
    with path.open("wb") as sent:
        sent.write(b"")  # TensorFlow creates a file at the first write, and empty data has none
        shutil.copyfileobj(collected, sent, _BLOCK)


def remove_partial(folder: Path) -> None:
    """Removes the partial files and folders that killed processes have left in a local folder."""
    for path in folder.glob(".*.partial"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: {path.parent} is not a folder; create it")


def _partial(path: Path) -> Path:
    # A random name lets several processes write the same file; the last rename wins.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _sync(path: Path) -> None:
    """Waits until the content of a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
