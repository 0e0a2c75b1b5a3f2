"""One name for what may lie here, on Kaggle, in a bucket, or come with the library.

path = fetch("gs://vertex-model-garden-paligemma-us/paligemma/pt_224.npz")
path = exported(Path("runs/tuesday"))     # the one model in the folder of a run
"""

from __future__ import annotations

import os
from pathlib import Path

from paligemma_lib.hub import gcs, kaggle

NANO = Path(__file__).parents[1] / "nano" / "nano.params.f16.npz"


def fetch(source: str | os.PathLike[str], cache: str | os.PathLike[str] = gcs.CACHE) -> Path:
    """Returns a local path, after a download where one is needed.

    Args:
      source: "nano", the model that comes with this library, beside its tokenizer.model; a local
        file; a folder of safetensors, as it is; the folder of a run, of which the one `.npz`
        file is returned;
        `gs://bucket/object` of a public bucket; or a Kaggle model, `owner/model/jax/variation`
        with or without `/version`, of which the one `.npz` file is returned.
      cache: where files from `gs://` are kept. One that is there already is not fetched again.
        kagglehub keeps its own, see KAGGLEHUB_CACHE.

    Raises:
      FileNotFoundError: there is nothing of that name.
      ValueError: a folder holds several `.npz` files.
      PermissionError: credentials are missing, or a licence has not been accepted.
      ConnectionError: no network, or a download that broke off or was damaged.
      OSError: no room on the disk.
    """
    name = os.fspath(source)
    if name == "nano":
        if not NANO.is_file():
            raise FileNotFoundError(
                f"{NANO} is not there: this installation lacks the model that comes with the "
                "library. Install it again, or give another checkpoint"
            )
        return NANO
    if name.startswith("gs://"):
        return gcs.fetch(name, cache)
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "config.json").exists():
        return exported(path)
    if path.exists():
        return path
    if kaggle.is_kaggle(name):
        return kaggle.fetch(name)
    raise FileNotFoundError(
        f"{name} is not there. Expected a local file or folder, gs://bucket/object, nano, or a "
        "Kaggle model such as google/paligemma/jax/paligemma-3b-pt-224"
    )


def exported(folder: Path) -> Path:
    """The one `.npz` file in the folder of a run, or the folder if it has none.

    Raises:
      ValueError: there are several.
    """
    found = sorted(folder.glob("*.npz"))
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise ValueError(f"{folder} holds several .npz files: give one of {names}")
    return found[0] if found else folder
