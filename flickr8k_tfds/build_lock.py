"""Lets one process at a time build a data set into a folder.

    with build_lock(Path("data/flickr8k_tfds/original/1.0.0")): ...

The lock is one of the operating system, on a hidden file beside the folder: it ends with its
process, also if that is killed. On file systems without locks, and on remote ones, it does nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import socket
from collections.abc import Iterator

from absl import logging
from etils import epath

from flickr8k_tfds.trees import DatasetError, visible

_INCOMPLETE = "incomplete."  # TFDS builds in a folder of this prefix, and renames it at the end


@contextlib.contextmanager
def build_lock(folder: epath.Path) -> Iterator[None]:
    """Holds the lock of a folder that is to be built, and removes what a killed build has left.

    Raises:
      DatasetError: another process builds it; the message says which one, where and since when.
    """
    parent = os.fspath(folder.parent)
    if "://" in parent:
        yield
        return
    os.makedirs(parent, exist_ok=True)
    path = os.path.join(parent, f".{folder.name}.lock")
    descriptor = _acquired(path, os.fspath(folder))
    try:
        if descriptor is not None:
            _remove_incomplete(parent, folder.name)
        yield
    finally:
        if descriptor is not None:
            # Removed while it is still locked: whoever waits for this file finds that it is gone.
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(descriptor)


def _acquired(path: str, folder: str) -> int | None:
    """Returns the descriptor of the locked file; None where files cannot be locked."""
    try:
        import fcntl
    except ImportError:  # on Windows
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise DatasetError(
                f"{folder} is being built by {holder}. Wait until it is done, or build into "
                "another folder with --data_dir."
            ) from error
        except OSError as error:
            os.close(descriptor)
            logging.warning("%s cannot be locked (%s): build it once at a time", folder, error)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                break
        os.close(descriptor)  # the one that held it has removed the file meanwhile
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    me = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(me).encode())
    return descriptor


def _holder(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
        return visible(f"process {found['pid']} on {found['host']} since {found['since']}")
    except (ValueError, TypeError, KeyError):  # it is just being written
        return "another process"


def _remove_incomplete(parent: str, name: str) -> None:
    with os.scandir(parent) as entries:
        left = [
            entry.path
            for entry in entries
            if entry.name.startswith(_INCOMPLETE) and entry.name.endswith(f"_{name}")
        ]
    for path in left:
        logging.info("Removing %s, which a build that was stopped has left", path)
        shutil.rmtree(path, ignore_errors=True)
