"""Writes the parameters at the end of a training run, in a type that holds them.

dtype = export_final("captioner", params, config, dtype="float16", tokenizer=model_bytes)

A run may have taken days. So a value that is too large for float16 ends in another type, with a
warning, and not in an error.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

from paligemma_lib.checkpoint.huggingface.config_json import CONFIG
from paligemma_lib.checkpoint.huggingface.writer import export
from paligemma_lib.checkpoint.params import save_params
from paligemma_lib.checkpoint.placement import TooLarge
from paligemma_lib.checkpoint.replaced_folder import holds_earlier, replacing
from paligemma_lib.checkpoint.target_names import target_kind
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.atomic import atomic_write, path_of
from paligemma_lib.runtime.visible_text import visible

# The files of an export, all of which `huggingface.export` writes.
_OURS = re.compile(
    r"(config|generation_config|preprocessor_config|tokenizer_config|special_tokens_map)\.json"
    r"|tokenizer\.model|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
)

# What is tried next, with as many bits if possible. float32 holds what bfloat16 rounds to infinity.
_WIDER = {"float16": "bfloat16", "bfloat16": "float32"}

_log = logging.getLogger(__name__)


def export_final(
    target: str | os.PathLike[str],
    params: dict[str, Any],
    config: PaliGemmaConfig,
    *,
    dtype: str,
    tokenizer: bytes,
) -> str:
    """Writes parameters and their tokenizer, and returns the dtype in which they were written.

    Args:
      target: a name that ends in `.npz`, or of a local folder; see `target_names.target_kind`. A
        file is replaced, and so is a folder that holds an earlier export and nothing else. Beside a
        file, the tokenizer is written as `tokenizer.model`.
      params: nested dict, as in `save_params`.
      config: the model.
      dtype: "float32", "bfloat16" or "float16". If a finite value is too large for it, bfloat16
        replaces float16, and float32 bfloat16; a warning names the parameter.
      tokenizer: a serialized SentencePiece model.

    Raises:
      FileExistsError: the folder holds something else than an earlier export.
      OSError: the disk is full, or fails in another way.
      ValueError: `target` has another ending, or a value is NaN or infinite; also as in
        `save_params` and `huggingface.export`.
    """
    kind = target_kind(target)
    while True:
        try:
            if kind == "npz":
                save_params(target, params, dtype)
            else:
                with replacing(target, _OURS, CONFIG) as place:
                    export(params, config, place, dtype=dtype, tokenizer=tokenizer)
            break
        except TooLarge as error:
            if dtype not in _WIDER:
                raise
            _log.warning(
                "%s is written in %s, not %s: %s",
                visible(os.fspath(target)),
                _WIDER[dtype],
                dtype,
                error,
            )
            dtype = _WIDER[dtype]
    if kind == "npz":
        with atomic_write(path_of(target).expanduser().with_name("tokenizer.model")) as file:
            file.write(tokenizer)
    return dtype


def holds_export(folder: Path) -> bool:
    """Returns whether a folder holds an earlier export, which a new one replaces.

    Raises:
      FileExistsError: the path is something else, such as a file, or a folder with other files.
    """
    return holds_earlier(folder, _OURS, CONFIG)
