"""What is said when a download does not fit: `raise no_room(error, name, folder) from error`."""

from __future__ import annotations

import shutil
from pathlib import Path


def no_room(
    error: OSError, name: str, folder: Path, instead: str = "`cache` to another folder"
) -> OSError:
    """What to raise instead of `error`: what did not fit, where, and what to do."""
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    return OSError(
        error.errno,
        f"no room for {name} in {folder}, where {free:,} bytes are free ({error.strerror}). "
        f"Nothing of it is used; make room, or set {instead}",
    )
