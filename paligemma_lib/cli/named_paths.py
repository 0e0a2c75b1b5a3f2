"""Reads options that are paths with names, and finds which name each path has.

paths_by_name(["runs/mine", "base=pt.npz"], "--checkpoint")    # {"mine": ..., "base": ...}
models, adapters = models_and_adapters(["nano"], ["birds", "dogs=runs/dogs"])
"""

import os
from collections.abc import Sequence

from paligemma_lib.runtime.atomic import is_remote


def paths_by_name(given: Sequence[str], option: str) -> dict[str, str]:
    """Returns the paths of an option by their names.

    Args:
      given: each is NAME=PATH or PATH, whose name is that of its last folder or file. What exists
        is a path as a whole, and so is an address: a sweep's folders have a = in their names.
      option: the option, for messages.

    Raises:
      ValueError: two have the same name, or one has none or no path.
    """
    found: dict[str, str] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or is_remote(name) or os.path.exists(os.path.expanduser(text)):
            name, path = os.path.basename(os.path.realpath(os.path.expanduser(text))), text
        if not name or not path:
            raise ValueError(f"{option} {text}: expected PATH or NAME=PATH")
        if name in found:
            raise ValueError(f"{option}: two are named {name}: give names, as {option} a={path}")
        found[name] = path
    return found


def models_and_adapters(
    checkpoints: Sequence[str], adapters: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the paths of --checkpoint and of --adapter by names that say which model is asked.

    Raises:
      ValueError: see `paths_by_name`, or adapters come with several checkpoints, or one has the
        name of its base model.
    """
    models = paths_by_name(checkpoints, "--checkpoint")
    others = paths_by_name(adapters, "--adapter")
    if others and len(models) > 1:
        raise ValueError("--adapter needs one --checkpoint, its base model; several are given")
    if both := models.keys() & others.keys():
        raise ValueError(
            f"--adapter: {min(both)} is the base model: give the adapter another name, as "
            f"--adapter mine={others[min(both)]}"
        )
    return models, others
