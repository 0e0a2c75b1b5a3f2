"""Locks a folder for one job at a time, and says who holds it.

with locked(Path("runs/mine")):        # OSError: runs/mine is in use by process 1234 on host ...
    train()

The lock is on the file `.paligemma.lock` in the folder. The system releases it when its process
ends, however that happens. `filelock` locks files too, but does not tell who holds one.
"""

import contextlib
import datetime
import errno
import fcntl
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.visible_text import visible

LOCK = ".paligemma.lock"

_MAX_BYTES = 500
_TRIES = 1000  # another job may remove folder and file at any time

_held: set[int] = set()  # descriptors of the locks that this process holds

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder during the block; creates the folder if it does not exist.

    Where nothing was written in the block, the folder is removed again. A folder on `gs://` is not
    locked. Where the system refuses a lock, as some network file systems do, a warning says so.

    Raises:
      OSError: another job holds the lock. The message names its process, machine and start.
    """
    if is_remote(folder):
        yield
        return
    created = not folder.exists()
    descriptor = _acquired(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            # Removed while it is locked: whoever opened it meanwhile finds that it is gone.
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()
            _held.discard(descriptor)
            os.close(descriptor)
        if created:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _acquired(folder: Path) -> int | None:
    """Returns the locked file, or None where there can be no lock."""
    path = folder / LOCK
    for left in reversed(range(_TRIES)):
        try:
            descriptor = _opened(folder, path)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and left:
                continue  # another job has just removed the folder that it had made
            _log.warning("%s cannot be locked (%s): start no other job there", folder, error)
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                break
            os.close(descriptor)  # its holder has just removed it
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if error.errno != errno.EWOULDBLOCK:
                _log.warning("%s cannot be locked (%s): start no other job there", folder, error)
                return None
            raise OSError(
                f"{folder} is in use by {holder}: wait until it ends, stop it, or use another "
                "folder"
            ) from error
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    told = f"process {os.getpid()} on {socket.gethostname()} since {now}"
    with contextlib.suppress(OSError):  # a full disk, or a file of somebody else: nobody is named
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, told.encode(), 0)
    _held.add(descriptor)
    return descriptor


def _opened(folder: Path, path: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except PermissionError:  # somebody else's job, perhaps: its file can be locked if it is read
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | flags)


def _holder(descriptor: int) -> str:
    """Returns who holds a lock, as its file says."""
    with contextlib.suppress(OSError):
        told = os.pread(descriptor, _MAX_BYTES, 0).decode("utf-8", "replace")
        found = re.fullmatch(r"process (\d+) on (\S+) since .*", told)
        if found and found[2] == socket.gethostname() and not Path(f"/proc/{found[1]}").exists():
            return f"a child of {visible(told)}, which has ended"
        if told:
            return visible(told)
    return "another process"


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _let_go() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


# The lock is released when the last process that has the file open ends: a forked child closes it.
os.register_at_fork(after_in_child=_let_go)
