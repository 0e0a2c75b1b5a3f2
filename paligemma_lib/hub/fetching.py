"""Finds a checkpoint by name: a local path, a model of Kaggle or the Hub, an object, or "nano".

path = fetch("gs://vertex-model-garden-paligemma-us/paligemma/pt_224.npz")
path = exported(Path("runs/tuesday"))     # the one model in the folder of a run
"""

from __future__ import annotations

import os
from pathlib import Path

from paligemma_lib.hub import gcs, huggingface_models, kaggle
from paligemma_lib.hub.web_addresses import check_no_address
from paligemma_lib.runtime.atomic import is_remote

NANO = Path(__file__).parents[1] / "nano" / "nano.params.f16.npz"

NANO_KNOWS = (
    "nano, the embedded model, has seen drawn scenes alone: of other images it says little that is "
    "true. For photographs, name a PaliGemma, such as google/paligemma-3b-pt-224"
)


def fetch(source: str | os.PathLike[str], cache: str | os.PathLike[str] = gcs.CACHE) -> Path:
    """Returns the local path of a checkpoint, downloading it if necessary.

    Args:
      source: one of these names:
        "nano": the small model that comes with this library, with tokenizer.model beside it;
        a local file;
        a folder of safetensors with a config.json: the folder itself is returned;
        the folder of a run: the one model that it exported is returned;
        `gs://bucket/object` in a public bucket;
        a Kaggle model, `owner/model/jax/variation` with or without `/version`: its one `.npz`
        file is returned;
        a model of the Hugging Face Hub, `OWNER/NAME` with or without `@REVISION`: the folder of its
        safetensors, or its one `.npz` file, is returned.
      cache: folder for files from `gs://`; a file that is in it already is not downloaded again.
        kagglehub and huggingface_hub have caches of their own, see KAGGLEHUB_CACHE and HF_HOME.

    Raises:
      FileNotFoundError: there is nothing with this name.
      ValueError: a folder holds several `.npz` files, a `gs://` name has no object, or `source` is
        an address such as https://huggingface.co/...
      PermissionError: credentials are missing, or a licence has not been accepted.
      ConnectionError: there is no network, or a download was interrupted or damaged.
      OSError: there is not enough disk space.
    """
    name = os.fspath(source)
    check_no_address(name)
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
    if huggingface_models.is_hub_model(name):
        return huggingface_models.fetch(name)
    raise FileNotFoundError(
        f"{name} does not exist. Expected a local file or folder, gs://bucket/object, nano, a "
        "model of the Hugging Face Hub such as google/paligemma-3b-pt-224, or a Kaggle model such "
        "as google/paligemma/jax/paligemma-3b-pt-224"
    )


def exported(folder: Path) -> Path:
    """Returns the one model that a run exported to its folder, or the folder if it has none.

    It is an `.npz` file, or else a folder of safetensors.

    Raises:
      ValueError: the folder holds several `.npz` files, or several folders of safetensors.
    """
    found, kind = sorted(folder.glob("*.npz")), ".npz files"
    if not found and not is_remote(folder) and not (folder / "config.json").exists():
        shown = (each for each in folder.glob("*/config.json") if each.parent.name[0] != ".")
        found = sorted(each.parent for each in shown if any(each.parent.glob("model*.safetensors")))
        kind = "folders of safetensors"
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise ValueError(f"{folder} holds several {kind}: give one of {names}")
    return found[0] if found else folder
