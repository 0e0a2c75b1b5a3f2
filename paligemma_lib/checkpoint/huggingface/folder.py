"""The weights in a folder: one file, or those that an index names, and each tensor's place.

    with contextlib.ExitStack() as stack:
        stored = open_tensors(stack, Path("paligemma2-3b-pt-224"))
        stored["lm_head.weight"].file, stored["lm_head.weight"].entry.start

The folder is untrusted: no path out of it is followed, and pickles are not touched.
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

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

_MAX_INDEX_BYTES = 16 << 20
_MAX_FILES = 1000


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor: the open file that holds it, its name there, and its place."""

    file: Any  # binary, not buffered
    name: str
    entry: Entry


def open_tensors(stack: contextlib.ExitStack, folder: Path) -> dict[str, Stored]:
    """Opens the files of a checkpoint and returns where each tensor is, by its name on the Hub.

    Args:
      stack: closes the files.
      folder: as in `weight_files`, whose errors apply.

    Raises:
      ValueError: a file is damaged, or a tensor is in two of them.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(folder):
        entries = read_header(path)
        file = stack.enter_context(open_binary(os.fspath(path)))
        for name, entry in entries.items():
            canonical = canonical_name(name)
            if canonical in found:
                raise ValueError(
                    f"{path}: {name} and {found[canonical].name} are the same tensor, there twice. "
                    "Remove files that do not belong to this checkpoint."
                )
            found[canonical] = Stored(file, name, entry)
    return found


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files of a checkpoint.

    Raises:
      FileNotFoundError: there is no folder, no such file in it, or not all that the index names.
      ValueError: the index is none, or there are pickles alone.
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
                f"{folder}: {len(absent)} of {len(names)} files are missing that {INDEX} names: "
                f"{listed(absent)}. Download the checkpoint again."
            )
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    cure = f"Download the checkpoint again, with {WEIGHTS} or {INDEX} and the files it names."
    if pickles := sorted(path.name for p in ("*.bin", "*.pt", "*.pth") for path in folder.glob(p)):
        raise ValueError(
            f"{folder}: {listed(pickles)} are pickles, which can run any program and are not "
            "read. Save the model as safetensors, transformers' save_pretrained does, and retry."
        )
    raise FileNotFoundError(f"{folder}: neither {WEIGHTS} nor {INDEX}. {cure}")


def _indexed_names(index: Path) -> list[str]:
    if (size := index.stat().st_size) > _MAX_INDEX_BYTES:
        raise ValueError(f"{index}: {size} bytes, expected at most {_MAX_INDEX_BYTES}.")
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{index}: expected JSON with a weight_map of tensor names to file names, got "
            f"{error!r}. Download the checkpoint again."
        ) from error
    bad = [name for name in names if not _is_bare(name)]
    if bad or not 0 < len(names) <= _MAX_FILES:
        raise ValueError(
            f"{index}: names {len(names)} files, expected 1 to {_MAX_FILES}, each a bare "
            f"*.safetensors name in this folder; not: {listed(bad)}."
        )
    return names


def _is_bare(name: object) -> bool:
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and not any(c in name for c in "/\\:\0")
    )
