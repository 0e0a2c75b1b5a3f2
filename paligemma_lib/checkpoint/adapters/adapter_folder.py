"""Finds the folder of an adapter, and says of which base model it is.

is_adapter("runs/mine")                # True: the workdir of a run that trained an adapter
base_of("runs/mine/adapter")           # "google/paligemma-3b-pt-224", as it was given there
"""

import os
from pathlib import Path

from paligemma_lib import hub
from paligemma_lib.checkpoint.adapters.peft_settings import ADAPTER_CONFIG, read_settings
from paligemma_lib.checkpoint.huggingface.config_json import CONFIG
from paligemma_lib.checkpoint.huggingface.format import read_metadata
from paligemma_lib.runtime.atomic import is_remote

ADAPTER_MODEL = "adapter_model.safetensors"
TOKENIZER = "tokenizer.model"  # of the run that trained the adapter; PEFT reads none
IN_WORKDIR = "adapter"  # the folder of the adapter that a run trains
BASE_STORAGE = "base_storage"  # in the metadata: how the base was stored while the adapter trained
IMAGE_SIZE = "image_size"  # there, too: pixels a side of the images that the adapter is for


def find_adapter(path: str | os.PathLike[str]) -> Path | None:
    """Returns the folder of an adapter: the path itself, or `adapter` in a run's workdir.

    An adapter of the Hugging Face Hub, OWNER/NAME, is downloaded.

    None: it is something else, such as a model, or a workdir with the model that a run exported.
    """
    if is_remote(path) or os.fspath(path) == "nano":  # which is the library's, whatever lies here
        return None
    if hub.is_hub_model(os.fspath(path)):
        return hub.fetch_adapter(os.fspath(path))
    folder = Path(path).expanduser()
    if not folder.is_dir() or (folder / CONFIG).is_file():
        return None
    if (folder / ADAPTER_CONFIG).is_file():
        return folder
    inner = folder / IN_WORKDIR
    if (inner / ADAPTER_CONFIG).is_file() and hub.exported(folder) == folder:
        return inner
    return None


def is_adapter(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is an adapter's folder, or the workdir of a run that trained one."""
    return find_adapter(path) is not None


def adapter_folder(path: str | os.PathLike[str]) -> Path:
    """Returns the folder of an adapter, as `find_adapter`.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it holds no adapter, or one whose values are a pickle.
    """
    folder = find_adapter(path)
    if folder is None:
        if is_remote(path) or not Path(path).expanduser().is_dir():
            raise FileNotFoundError(
                f"{os.fspath(path)}: no such folder on this machine, expected that of an adapter, "
                f"with {ADAPTER_CONFIG} and {ADAPTER_MODEL}. Download it first"
            )
        raise ValueError(
            f"{os.fspath(path)} is not the folder of an adapter: it has no {ADAPTER_CONFIG}"
        )
    if not (folder / ADAPTER_MODEL).is_file():
        if (folder / "adapter_model.bin").is_file():
            raise ValueError(
                f"{folder}: adapter_model.bin is a pickle, which can run any program and is not "
                "read. Save the adapter as safetensors (peft's save_pretrained does) and retry"
            )
        raise FileNotFoundError(
            f"{folder} has {ADAPTER_CONFIG} but lacks {ADAPTER_MODEL}: download it again"
        )
    return folder


def base_of(path: str | os.PathLike[str]) -> str:
    """Returns the name of an adapter's base model, as it was given when the adapter was made.

    Of a model of the Hub, the revision is part of it: OWNER/NAME@REVISION.

    Raises:
      FileNotFoundError, ValueError: as in `adapter_folder`; adapter_config.json is not understood,
        or names no base.
    """
    folder = adapter_folder(path)
    base = read_settings(folder).base
    if not base:
        raise ValueError(
            f"{folder / ADAPTER_CONFIG} does not name the base model (base_model_name_or_path is "
            "empty): load that model, and the adapter by its side, as in `--checkpoint BASE "
            f"--adapter {folder}`"
        )
    return base


def adapter_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the texts that `write_adapter` kept beside an adapter's arrays, by name.

    Raises:
      FileNotFoundError, ValueError: as in `adapter_folder`, or the file is damaged.
    """
    return read_metadata(adapter_folder(path) / ADAPTER_MODEL)
