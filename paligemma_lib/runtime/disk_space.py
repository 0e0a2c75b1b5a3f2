"""A folder to write to, local or `gs://`: whether it can be written to, and has space.

check_writable("runs/flickr8k")
print(check_space("runs/flickr8k", needed=12 << 30))
raise no_space(error, name, folder) from error
"""

import contextlib
import importlib.util
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from paligemma_lib.runtime.atomic import is_remote, path_of
from paligemma_lib.runtime.sizes import gib


def check_writable(folder: str) -> None:
    """Writes a byte where `folder` is or would be made, and removes it again.

    Raises:
      OSError: that is not possible.
      ImportError: packages that `gs://` takes are missing.
    """
    if folder.startswith("gs://") and importlib.util.find_spec("gcsfs") is None:
        raise ImportError(f"{folder} needs gcsfs and more: pip install 'paligemma_lib[gcs]'")
    try:
        if is_remote(folder):
            trace = path_of(folder) / f".doctor-{secrets.token_hex(4)}"
            trace.write_bytes(b"1")
            trace.unlink()
            return
        with tempfile.TemporaryFile(dir=_existing(folder)) as file:
            file.write(b"1")
            file.flush()
    except Exception as error:  # each kind of remote storage has exceptions of its own
        raise OSError(
            f"{folder} cannot be written to ({type(error).__name__}: {error}): choose another "
            "workdir, or see to its permissions"
        ) from error


def check_space(folder: str, needed: int) -> str:
    """Compares what will be written with what is free, and with what such a run has left there.

    Args:
      folder: need not exist yet. Remote ones are taken to have room.
      needed: bytes.

    Raises:
      OSError: there is not enough space.
    """
    if is_remote(folder):
        return f"{folder} can be written to, about {gib(needed)} will be"
    free = shutil.disk_usage(_existing(folder)).free
    left = _size(Path(folder)) if os.path.isdir(folder) else 0  # of this run: it will be replaced
    if needed > free + left:
        raise OSError(
            f"{folder} needs about {gib(needed)} for checkpoints and the exported model, "
            f"and {gib(free)} are free: make room, keep fewer checkpoints (`keep`), let "
            "fewer parameters train, or choose another workdir"
        )
    return f"{folder} needs about {gib(needed)} of {gib(free)} that are free"


def no_space(
    error: OSError, name: str, folder: Path, instead: str = "`cache` to another folder"
) -> OSError:
    """What to raise instead of `error`: what did not fit, where, and what to do."""
    free = shutil.disk_usage(_existing(folder)).free
    return OSError(
        error.errno,
        f"no room for {name} in {folder}, where {free:,} bytes are free ({error.strerror}). "
        f"Nothing of it is used; make room, or set {instead}",
    )


def _existing(folder: str | Path) -> Path:
    """The folder, or the first around it that exists."""
    path = Path(folder).absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total
