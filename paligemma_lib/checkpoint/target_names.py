"""Says what kind of checkpoint a name asks for, before anything is computed.

target_kind("captioner.npz")          # "npz": one file, as the reference writes it
target_kind("my-captioner")           # "folder": safetensors, config.json, as transformers does
target_kind("captioner.bin")          # ValueError
"""

import os
import re
from pathlib import PurePosixPath
from typing import Literal

from paligemma_lib.runtime.atomic import is_remote
from paligemma_lib.runtime.visible_text import visible

NPZ = ".npz"

# What programs name a kind of file by: a letter first. ".5" in "captioner-v1.5" is none.
_SUFFIX = re.compile(r"\.[A-Za-z]\w*")


def target_kind(name: str | os.PathLike[str]) -> Literal["npz", "folder"]:
    """Returns which kind of checkpoint is written under a name.

    A name that ends in `.npz` asks for the reference's format. A name without the suffix of a file
    asks for a Hugging Face folder; what follows the last dot is no suffix if it begins with a
    digit, as in `captioner-v1.5`.

    Args:
      name: a local path, or for `.npz` also a remote one such as `gs://bucket/captioner.npz`.

    Raises:
      ValueError: the name has another suffix, or is empty, or of a remote folder.
    """
    text = os.fspath(name)
    last = PurePosixPath(text.replace(os.sep, "/")).name
    shown = visible(text)[:200]
    if last in ("", ".."):
        raise ValueError(f"{shown!r} names no file or folder to write a checkpoint to")
    suffix = PurePosixPath(f"_{last}").suffix  # so that ".npz" alone is a suffix too
    if suffix == NPZ and last != NPZ:
        return "npz"
    if _SUFFIX.fullmatch(suffix):
        raise ValueError(
            f"{shown} ends in {visible(suffix)}, expected a name that ends in .npz (the "
            "reference's format), or one without a suffix for a Hugging Face folder of safetensors"
        )
    if is_remote(text):
        raise ValueError(
            f"{shown} is not a local path: a folder is written to a local path, then copied, for "
            "instance with `gcloud storage cp -r`"
        )
    return "folder"
