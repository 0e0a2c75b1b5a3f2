"""Puts a damaged file aside under another name, so that it neither stops a job nor is lost.

put_aside(path_of("runs/mine/metrics.jsonl"), "line 7 is no JSON")    # metrics.jsonl.damaged
"""

import itertools
import logging
import os
import shutil
from pathlib import Path

from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.visible_text import visible

_MOST = 100  # names that are tried

_log = logging.getLogger(__name__)


def put_aside(path: Path, why: str, *, keep: bool = False) -> None:
    """Renames a file to NAME.damaged, or NAME.damaged-2 and so on, and logs that.

    It is for files beside the results of a job, which the job can do without or make again. If the
    file cannot be renamed, as in a folder that cannot be written to, that is logged.

    Args:
      path: the file, from `atomic.path_of`.
      why: what is wrong with it.
      keep: whether the file stays under its name too, because a whole one replaces it atomically.
    """
    shown = visible(str(path))
    try:
        aside = _free_name(path)
        if keep:
            _copy(path, aside)
        else:
            path.rename(aside)
    except Exception as error:  # each storage has exceptions of its own
        _log.warning("%s is damaged: %s. It cannot be put aside (%s)", shown, visible(why), error)
    else:
        _log.warning("%s: put aside as %s: %s", shown, aside.name, visible(why))


def _free_name(path: Path) -> Path:
    names = itertools.chain([".damaged"], (f".damaged-{k}" for k in range(2, _MOST)))
    for aside in (path.with_name(path.name + name) for name in names):
        if not aside.exists():
            return aside
    raise FileExistsError(f"{path.name}.damaged and {_MOST - 2} more exist: remove some")


def _copy(path: Path, aside: Path) -> None:
    if is_remote(path):
        path.copy(aside)  # type: ignore[attr-defined]  # of epath
        return
    try:
        os.link(path, aside)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, aside)
