"""Finds the weight files in a folder (one, or those in an index) and each tensor's place in them.

    with contextlib.ExitStack() as stack:
        stored = open_tensors(stack, Path("paligemma2-3b-pt-224"))
        stored["lm_head.weight"].file, stored["lm_head.weight"].entry.start

The folder is untrusted: no path that leaves it is followed, and pickles are not read.
"""

import contextlib
import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

from paligemma_lib.checkpoint.arrays import open_binary
from paligemma_lib.checkpoint.huggingface.format import Entry, read_header
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.checkpoint.huggingface.refusals import check_no_adapter
from paligemma_lib.checkpoint.huggingface.tensors import canonical_name
from paligemma_lib.checkpoint.matching import listed
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.runtime.visible_text import visible

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

_MAX_INDEX_BYTES = 16 << 20
_MAX_FILES = 1000
_MAX_NAME = 80  # characters; file systems allow 255 bytes

_log = logging.getLogger(__name__)


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
            if canonical is None:
                continue
            if canonical in found:
                both = listed([name, found[canonical].name])
                raise ValueError(
                    f"{path}: {both} are the same tensor, stored twice. Remove files that do not "
                    "belong to this checkpoint."
                )
            found[canonical] = Stored(file, name, entry)
    return found


def weight_files(folder: Path) -> list[Path]:
    """Returns the paths of the safetensors files of a checkpoint.

    Of a whole file and an index without it, the whole file is read, as transformers does, and a
    warning is logged.

    Raises:
      FileNotFoundError: the folder does not exist, holds no weights, or lacks a file that the
        index names.
      ValueError: the index is invalid, or the folder holds its weights as pickles only, or an
        adapter.
    """
    if "://" in str(folder) or not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder on this machine. Download the checkpoint first, for "
            "instance with `hf download google/paligemma-3b-pt-224 --local-dir FOLDER`."
        )
    whole, index = folder / WEIGHTS, folder / INDEX
    if whole.is_file():
        ignored = _ignored(index) if index.is_file() else ""
        if ignored is None:
            return _indexed(index)
        if ignored:
            _log.warning(
                "%s is read, but not %s (%s); transformers chooses likewise. Remove what is out of "
                "date",
                visible(str(whole)),
                INDEX,
                ignored,
            )
        return [whole]
    if index.is_file():
        return _indexed(index)
    check_no_adapter(folder)
    cure = f"Download the checkpoint again, with {WEIGHTS} or {INDEX} and the files it names."
    if pickles := sorted(path.name for p in ("*.bin", "*.pt", "*.pth") for path in folder.glob(p)):
        raise ValueError(
            f"{folder}: {listed(pickles)} are pickles, which can run any program and are not "
            "read. Save the model as safetensors (transformers' save_pretrained does) and retry."
        )
    raise FileNotFoundError(f"{folder} contains neither {WEIGHTS} nor {INDEX}. {cure}")


def _indexed(index: Path) -> list[Path]:
    names = _indexed_names(index)
    if absent := [name for name in names if not (index.parent / name).is_file()]:
        raise FileNotFoundError(
            f"{index.parent}: {len(absent)} of the {len(names)} files in {INDEX} are missing: "
            f"{listed(absent)}. Download the checkpoint again."
        )
    return [index.parent / name for name in names]


def _ignored(index: Path) -> str | None:
    """Returns why an index beside a whole file is not read; None: the whole file is one of its."""
    try:
        names = _indexed_names(index)
    except ValueError:
        return "it is no valid index"
    if WEIGHTS in names:
        return None
    if absent := sum(not (index.parent / name).is_file() for name in names):
        return f"{absent} of the {len(names)} files that it names are missing"
    return f"its {len(names)} files hold another copy"


def _indexed_names(index: Path) -> list[str]:
    if (size := index.stat().st_size) > _MAX_INDEX_BYTES:
        raise ValueError(f"{index}: {size} bytes, expected at most {_MAX_INDEX_BYTES}.")
    data = read_bounded(index, _MAX_INDEX_BYTES)
    try:
        weight_map = json_object(data).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ValueError("none")
    except ValueError as error:
        raise ValueError(
            f"{index}: expected JSON with a weight_map of tensor names to file names, got "
            f"{error}. Download the checkpoint again."
        ) from error
    bad = [name for name in weight_map.values() if not _is_bare(name)]
    names = sorted({name for name in weight_map.values() if _is_bare(name)})
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
        and name.isprintable()
        and len(name) <= _MAX_NAME
        and not any(c in name for c in "/\\:")
    )
