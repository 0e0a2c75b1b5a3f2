"""Files and folders that are there whole or not at all.

with atomic_write(path_of("gs://bucket/run/params.npz")) as file:
    file.write(data)
with atomic_folder(Path("my-captioner")) as partial:
    (partial / "config.json").write_text("{}")
remove_partial(Path("runs"))                # what a killed process has left there

No kept library does it: etils' paths write in place, and what fsspec commits is moved from another
folder, perhaps of another disk, and not synced.
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

_BLOCK = 16 << 20  # bytes that are sent at a time


def path_of(name: str | os.PathLike[str]) -> Path:
    """A local path, or one of `gs://`, which has the same methods."""
    if not is_remote(name):
        return Path(name)
    from etils import epath  # by TensorFlow where it is installed, else by fsspec

    return cast(Path, epath.Path(name))


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a file system, as in gs://bucket/file."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file that replaces `path` when the block ends, and not if it fails.

    Until then it lies beside `path` as `.NAME.*.partial`. Whatever happens, even a power cut, the
    old file or the new one is there, whole; a killed process leaves its partial file behind, which
    `remove_partial` removes.

    A remote file, as `path_of` gives it, is collected in a temporary local one and sent when the
    block ends, again if that fails for a reason that may pass: it appears when all of it has
    arrived, in a folder that need not exist.

    Raises:
      FileNotFoundError: the folder of `path` is not there.
      IsADirectoryError: `path` is a folder.
      OSError: it cannot be written.
    """
    if is_remote(path):
        with tempfile.TemporaryFile() as collected:
            yield cast(BinaryIO, collected)
            try:
                retry(lambda: _send(cast(BinaryIO, collected), path), str(path))
            except Exception as error:  # of TensorFlow's, or of another client of the storage
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
        # A rename within a folder is atomic; the content is on the disk before the name is.
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk does not say what was written
        raise
    _sync(path.parent)  # the new name itself must reach the disk


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives a new folder that is renamed to `path` when the block ends, and removed if it fails.

    Until then it lies beside `path` as `.NAME.*.partial`; a killed process leaves it behind.

    Raises:
      FileNotFoundError: the folder around `path` is not there.
      FileExistsError: `path` is there, and is no empty folder.
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
        partial.rename(path)  # also over an empty folder
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync(path.parent)


def _send(collected: BinaryIO, path: Path) -> None:
    collected.seek(0)
    with path.open("wb") as sent:
        sent.write(b"")  # else TensorFlow makes no empty file
        shutil.copyfileobj(collected, sent, _BLOCK)


def remove_partial(folder: Path) -> None:
    """Removes what killed processes have left of files and folders in a local one."""
    for path in folder.glob(".*.partial"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: {path.parent} is not a folder; create it")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
