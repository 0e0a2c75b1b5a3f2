"""Finds the weight files in a folder (one, or those in an index) and each tensor's place in them.

    with contextlib.ExitStack() as stack:
        stored = open_tensors(stack, Path("paligemma2-3b-pt-224"))
        stored["lm_head.weight"].file, stored["lm_head.weight"].entry.start

The folder is untrusted: no path that leaves it is followed, and pickles are not read.
"""

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from paligemma_lib.checkpoint.arrays import open_binary
from paligemma_lib.checkpoint.huggingface.format import Entry, read_header
from paligemma_lib.checkpoint.huggingface.tensors import canonical_name
from paligemma_lib.checkpoint.matching import listed
from paligemma_lib.runtime.regular_files import read_bounded

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

_MAX_INDEX_BYTES = 16 << 20
_MAX_FILES = 1000


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file: the open file, the tensor's name in it, and its header entry."""

    file: Any  # binary and unbuffered
    name: str
    entry: Entry


def open_tensors(stack: contextlib.ExitStack, folder: Path) -> dict[str, Stored]:
    """Opens the files of a checkpoint and returns its tensors, by their names on the Hub.

    Args:
      stack: the exit stack that closes the files.
      folder: folder of the checkpoint, as in `weight_files`.

    Raises:
      FileNotFoundError: as in `weight_files`.
      ValueError: a file is damaged, or a tensor is stored twice; also as in `weight_files`.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(folder):
        entries = read_header(path)
        file = stack.enter_context(open_binary(os.fspath(path)))
        for name, entry in entries.items():
            canonical = canonical_name(name)
            if canonical in found:
                raise ValueError(
                    f"{path}: {name} and {found[canonical].name} are the same tensor, stored "
                    "twice. Remove files that do not belong to this checkpoint."
                )
            found[canonical] = Stored(file, name, entry)
    return found


def weight_files(folder: Path) -> list[Path]:
    """Returns the paths of the safetensors files of a checkpoint.

    Raises:
      FileNotFoundError: the folder does not exist, holds no weights, or lacks a file that the
        index names.
      ValueError: the index is invalid, or the folder holds its weights as pickles only.
    """
    if "://" in str(folder) or not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder on this machine. Download the checkpoint first, for "
            "instance with `hf download google/paligemma-3b-pt-224 --local-dir FOLDER`."
        )
    if (folder / INDEX).is_file():
        names = _indexed_names(folder / INDEX)
        if absent := [name for name in names if not (folder / name).is_file()]:
            raise FileNotFoundError(
                f"{folder}: {len(absent)} of the {len(names)} files in {INDEX} are missing: "
                f"{listed(absent)}. Download the checkpoint again."
            )
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    cure = f"Download the checkpoint again, with {WEIGHTS} or {INDEX} and the files it names."
    if pickles := sorted(path.name for p in ("*.bin", "*.pt", "*.pth") for path in folder.glob(p)):
        raise ValueError(
            f"{folder}: {listed(pickles)} are pickles, which can run any program and are not "
            "read. Save the model as safetensors (transformers' save_pretrained does) and retry."
        )
    raise FileNotFoundError(f"{folder} contains neither {WEIGHTS} nor {INDEX}. {cure}")


def _indexed_names(index: Path) -> list[str]:
    if (size := index.stat().st_size) > _MAX_INDEX_BYTES:
        raise ValueError(f"{index}: {size} bytes, expected at most {_MAX_INDEX_BYTES}.")
    data = read_bounded(index, _MAX_INDEX_BYTES)
    try:
        names = sorted(set(json.loads(data)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{index}: expected JSON with a weight_map of tensor names to file names, got "
            f"{error!r}. Download the checkpoint again."
        ) from error
    bad = [name for name in names if not _is_bare(name)]
    if bad or not 0 < len(names) <= _MAX_FILES:
        raise ValueError(
            f"{index}: names {len(names)} files, expected 1 to {_MAX_FILES}, each a bare "
            f"*.safetensors name in this folder{'; invalid: ' * bool(bad)}{listed(bad)}."
        )
    return names


def _is_bare(name: object) -> bool:
    # Without a separator of Unix or Windows, or a drive's colon, a name cannot leave the folder.
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and not any(c in name for c in "/\\:\0")
    )
