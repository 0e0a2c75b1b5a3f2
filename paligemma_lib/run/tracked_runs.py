"""Remembers, in a run's workdir, which run at a service it is, so that a resumed one goes on there.

tracked = TrackedRun("runs/mine", "wandb")
tracked.known() or tracked.begin()          # "mine-3f9c01a2"
"""

import os
import re
import secrets
from collections.abc import Mapping
from typing import Any

from paligemma_lib.runtime.atomic import atomic_write, path_of
from paligemma_lib.runtime.regular_files import read_bounded

PROJECT = "paligemma_lib"  # of runs at a service, unless its own setting names another

_ID = re.compile(r"[\w.-]{1,100}")
_MAX_BYTES = 200


class TrackedRun:
    """The id of a run at a service, kept in the file SERVICE_run.txt of the workdir."""

    def __init__(self, workdir: str | os.PathLike[str], service: str) -> None:
        self.workdir = path_of(workdir)
        self._path = self.workdir / f"{service}_run.txt"

    @property
    def name(self) -> str:
        """Name of the run, for people: that of its workdir."""
        return re.sub(r"[^\w.-]", "-", self.workdir.name) or "run"

    def known(self) -> str | None:
        """Returns the id of an earlier start; None if there is none that can be read."""
        try:
            found = read_bounded(self._path, _MAX_BYTES).decode().strip()
        except (OSError, ValueError):
            return None
        return found if _ID.fullmatch(found) else None

    def begin(self, run_id: str = "") -> str:
        """Keeps an id, by default a new one, and returns it."""
        run_id = run_id or f"{self.name[:80]}-{secrets.token_hex(4)}"
        with atomic_write(self._path) as file:
            file.write(f"{run_id}\n".encode())
        return run_id


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested config as one level of dotted names."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
