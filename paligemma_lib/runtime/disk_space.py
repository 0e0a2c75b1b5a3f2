"""Checks that a folder, local or `gs://`, can be written to and has enough disk space.

check_writable("runs/flickr8k")
print(check_space("runs/flickr8k", needed=12 << 30))
raise no_space(error, name, folder) from error
"""

import contextlib
import errno
import importlib.util
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from paligemma_lib.runtime.atomic import is_remote, path_of
from paligemma_lib.runtime.sizes import gib


def check_writable(folder: str) -> None:
    """Writes a byte to `folder`, or to where it would be created, and removes it again.

    Raises:
      OSError: the byte cannot be written.
      ImportError: the packages that `gs://` needs are not installed.
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
    except Exception as error:  # each storage client has exceptions of its own
        raise OSError(
            f"{folder} cannot be written to ({type(error).__name__}: {error}): choose another "
            "workdir, or check its permissions"
        ) from error


def check_space(folder: str, needed: int) -> str:
    """Checks that `needed` bytes fit into the free space plus what the folder takes already.

    Args:
      folder: folder of the run, which need not exist yet. Remote storage counts as unlimited.
      needed: number of bytes that the run will write.

    Returns:
      A sentence that states both sizes.

    Raises:
      OSError: there is not enough space.
    """
    if is_remote(folder):
        return f"{folder} is writable; the run needs about {gib(needed)}"
    free = shutil.disk_usage(_existing(folder)).free
    # Files already there are this run's own; new ones will replace them, so their space counts.
    own = _size(Path(folder)) if os.path.isdir(folder) else 0
    there = f"{gib(free)} of disk space" + f" and its own {gib(own)}" * bool(own)
    if needed > free + own:
        raise OSError(
            f"{folder} needs about {gib(needed)} for checkpoints and the exported model, but only "
            f"{there} are free. Free disk space, keep fewer checkpoints (`keep`), train fewer "
            "parameters, or choose another workdir"
        )
    return f"{folder} needs about {gib(needed)}; {there} are free"


def check_download(name: str, needed: int, folder: Path, instead: str) -> None:
    """Raises OSError if a download of `needed` bytes does not fit on the disk of `folder`.

    Args:
      name: what is downloaded, for the message.
      needed: bytes that are still to come.
      folder: where they go; it need not exist yet.
      instead: what to set so that they go elsewhere, for the message.
    """
    if needed > shutil.disk_usage(_existing(folder)).free:
        error = OSError(errno.ENOSPC, f"it needs {needed:,} bytes")
        raise no_space(error, name, folder, instead)


def no_space(
    error: OSError, name: str, folder: Path, instead: str = "`cache` to another folder"
) -> OSError:
    """Returns an error to raise instead of `error`: what did not fit, where, and what to do."""
    free = shutil.disk_usage(_existing(folder)).free
    return OSError(
        error.errno,
        f"not enough disk space for {name} in {folder}, where {free:,} bytes are free "
        f"({error.strerror}). The partial file is not used. Free disk space, or set {instead}",
    )


def _existing(folder: str | Path) -> Path:
    """Returns the folder, or its closest parent that exists."""
    path = Path(folder).absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # deleted meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total
