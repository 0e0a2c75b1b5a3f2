"""Replaces a folder that an earlier run of the same program has written, and nothing else.

with replacing("runs/mine/adapter", OURS, "adapter_config.json") as place:
    write_to(place)                            # the earlier folder stays until this is done
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from paligemma_lib.checkpoint.matching import listed


def holds_earlier(folder: str | os.PathLike[str], ours: re.Pattern[str], sign: str) -> bool:
    """Returns whether a folder holds what was written there earlier; False: nothing is there.

    Args:
      folder: a local path.
      ours: names of the files that are written.
      sign: name of the file that is always among them.

    Raises:
      FileExistsError: the path is something else, such as a file, or a folder with other files.
    """
    folder = _resolved(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    names = set(os.listdir(folder)) if folder.is_dir() else set()
    foreign = sorted(name for name in names if not ours.fullmatch(name))
    if foreign or sign not in names:
        holds = (
            f"holds other files than an export: {listed(foreign)}" if foreign else "is no export"
        )
        raise FileExistsError(f"{folder} exists, and {holds}. Remove it, or choose another name")
    return True


@contextlib.contextmanager
def replacing(folder: str | os.PathLike[str], ours: re.Pattern[str], sign: str) -> Iterator[Path]:
    """Yields where to write a folder, and puts it in the place of an earlier one, if any.

    Arguments and errors are those of `holds_earlier`.
    """
    folder = _resolved(folder)
    # The earlier one stays until the new one is complete. A killed process leaves these names: both
    # are of complete folders, and if it was killed between the renames, one of them is taken back.
    fresh, former = (folder.with_name(f".{folder.name}-{which}") for which in ("new", "former"))
    for left in (fresh, former):
        if left.is_dir() and not folder.exists():
            left.rename(folder)
    if not holds_earlier(folder, ours, sign):
        yield folder
        return
    for left in (fresh, former):
        shutil.rmtree(left, ignore_errors=True)
    yield fresh
    folder.rename(former)
    fresh.rename(folder)
    shutil.rmtree(former, ignore_errors=True)


def _resolved(folder: str | os.PathLike[str]) -> Path:
    """Returns a folder's own path: what is renamed must not be a link to it."""
    return Path(os.path.realpath(os.path.expanduser(folder)))
