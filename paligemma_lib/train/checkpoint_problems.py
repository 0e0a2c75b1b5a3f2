"""Tells what is wrong with a checkpoint: damage, storage that fails, or other parameters.

check_damage(error, path)            # raises what is no damage
check_kinds(saved, target, "checkpoints, step 120")
"""

import errno
from collections.abc import Mapping
from typing import Any

import jax

from paligemma_lib.runtime.retries import is_transient
from paligemma_lib.train.digests import kind


def check_damage(error: Exception, path: Any) -> None:
    """Raises an error unless it may come from damage of a file.

    Memory, permissions and storage that fails are no damage: the file is whole, and must stay.
    """
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        raise error
    refused = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM)
    if refused or is_transient(error):
        raise OSError(
            f"{path} cannot be read: {brief(error)}. Nothing was removed: make it readable, or "
            "remove its checkpoint to go on from an earlier one"
        ) from error


def check_kinds(saved: Mapping[str, str], target: Any, where: str) -> None:
    """Raises ValueError if names, dtypes or shapes of the saved arrays differ from the target."""
    now = {
        f"{jax.tree_util.keystr(path)} {kind(leaf)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(target)
    }
    before = {f"{name} {told.split()[0]}" for name, told in saved.items()}
    if now != before:
        raise ValueError(
            f"{where}: it does not hold the parameters that train now. Use another folder, or "
            f"train the saved ones (saved or needed, not both: {sorted(now ^ before)[:4]})"
        )


def brief(error: Exception) -> str:
    """Returns the message of an error on one line; of a long one, both ends."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else f"{text[:150]} ... {text[-250:]}"  # causes come last
