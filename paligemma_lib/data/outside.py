"""Refuses links and names that lead out of the folders of data, unless the user allows them.

    check_link("photos/1.jpg", ("photos",))     # ValueError if it is a link to /home/other/1.jpg
    check_link("photos/1.jpg", ANYWHERE)        # allowed
    check_way("photos", "photos/a/b/1.jpg", ("photos",))        # ValueError if a, b or 1.jpg is one

What a user names is followed, links included. What stands in data may come from a stranger: a link
in an unpacked archive, or a name such as ../../private.jpg in a table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from paligemma_lib.runtime.atomic import is_remote

ANYWHERE = (os.sep,)  # folders for `check_link` that allow every target

CURE = "set data.allow_outside=True, or --allow-outside of a command, to read it nevertheless"


def check_link(path: str, folders: Sequence[str]) -> None:
    """Raises ValueError if a path is a link, and leads out of all of the folders.

    Args:
      path: a local path, whose last component is looked at; of a remote one, nothing is.
      folders: the folders that it may lead into.
    """
    if is_remote(path) or not os.path.islink(path):
        return
    target = os.path.realpath(path)
    if not any(_is_below(target, os.path.realpath(folder)) for folder in folders):
        raise ValueError(
            f"{path} is a link that leads out of {folders[0]}, to {target}: it is not followed. If "
            f"you trust the data, {CURE}"
        )


def check_way(start: str, path: str, folders: Sequence[str]) -> None:
    """Raises ValueError if a link on the way from one local path to a path below leads out.

    Args:
      start: where the way starts, such as a folder that the user named.
      path: where it ends.
      folders: the folders that links may lead into.
    """
    if is_remote(path):
        return
    place = start
    for name in os.path.relpath(path, start).split(os.sep):
        place = os.path.join(place, name)
        check_link(place, folders)


def leads_out(name: str) -> bool:
    """Returns whether the name of a file in data is absolute, or goes up with `..`."""
    return os.path.isabs(name) or ".." in name.replace("\\", "/").split("/")


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
