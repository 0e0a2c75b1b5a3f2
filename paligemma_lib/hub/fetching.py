"""Finds a checkpoint by name: a local path, a Kaggle model, a bucket's object, or "nano".

path = fetch("gs://vertex-model-garden-paligemma-us/paligemma/pt_224.npz")
path = exported(Path("runs/tuesday"))     # the one model in the folder of a run
"""

from __future__ import annotations

import os
from pathlib import Path

from paligemma_lib.hub import gcs, kaggle

NANO = Path(__file__).parents[1] / "nano" / "nano.params.f16.npz"


def fetch(source: str | os.PathLike[str], cache: str | os.PathLike[str] = gcs.CACHE) -> Path:
    """Returns the local path of a checkpoint, downloading it if necessary.

    Args:
      source: one of these names:
        "nano": the small model that comes with this library, with tokenizer.model beside it;
        a local file;
        a folder of safetensors with a config.json: the folder itself is returned;
        the folder of a run: its one `.npz` file is returned;
        `gs://bucket/object` in a public bucket;
        a Kaggle model, `owner/model/jax/variation` with or without `/version`: its one `.npz`
        file is returned.
      cache: folder for files from `gs://`; a file that is in it already is not downloaded again.
        kagglehub has a cache of its own, see KAGGLEHUB_CACHE.

    Raises:
      FileNotFoundError: there is nothing with this name.
      ValueError: a folder holds several `.npz` files, or a `gs://` name has no object.
      PermissionError: credentials are missing, or a licence has not been accepted.
      ConnectionError: there is no network, or a download was interrupted or damaged.
      OSError: there is not enough disk space.
    """
    name = os.fspath(source)
    if name == "nano":
        if not NANO.is_file():
            raise FileNotFoundError(
                f"{NANO} does not exist: this installation lacks the model that comes with the "
                "library. Install the library again, or give another checkpoint"
            )
        return NANO
    if name.startswith("gs://"):
        return gcs.fetch(name, cache)
    # Local paths come before Kaggle: a folder may be named like a model there.
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "config.json").exists():
        return exported(path)
    if path.exists():
        return path
    if kaggle.is_kaggle(name):
        return kaggle.fetch(name)
    raise FileNotFoundError(
        f"{name} does not exist. Expected a local file or folder, gs://bucket/object, nano, or a "
        "Kaggle model such as google/paligemma/jax/paligemma-3b-pt-224"
    )


def exported(folder: Path) -> Path:
    """Returns the one `.npz` file in the folder of a run, or the folder if it has none.

    Raises:
      ValueError: the folder holds several `.npz` files.
    """
    found = sorted(folder.glob("*.npz"))
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise ValueError(f"{folder} holds several .npz files: give one of {names}")
    return found[0] if found else folder
