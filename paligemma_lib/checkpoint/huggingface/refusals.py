"""Recognizes folders without plain weights, adapters and quantised models, and says what to do.

check_no_adapter(folder)                       # ValueError, if it is one
lines = hints(names, codes)                    # for the error about what a folder holds
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paligemma_lib.checkpoint.huggingface.bitsandbytes import METHOD
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.runtime.visible_text import visible

ADAPTER_CONFIG = "adapter_config.json"

_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_MAX_BYTES = 1 << 20
_MERGE = (
    "Save the adapter alone, as peft's save_pretrained does, and give it with --adapter; or merge "
    "it: `paligemma merge BASE ADAPTER --out FOLDER`"
)
_DEQUANTISE = (
    "Load it with transformers, call model.dequantize() and model.save_pretrained(FOLDER), and "
    "give FOLDER; or take the model from which it was made"
)
# What bitsandbytes, GPTQ, AWQ, compressed-tensors and FP8 store beside or in place of a weight.
_QUANTISED = re.compile(
    r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*|SCB|weight_format"
    r"|qweight|qzeros|g_idx|scales|weight_packed|weight_shape|weight_scale|weight_scale_inv"
    r"|weight_zero_point|input_scale)$"
)
_WHOLE_NUMBERS = re.compile(r"[IU](8|16|32)|F[48].*")


def check_no_adapter(folder: Path) -> None:
    """Raises ValueError if a folder without a model holds an adapter, such as LoRA's."""
    found = [name for name in (*_ADAPTERS, ADAPTER_CONFIG) if (folder / name).is_file()]
    if found:
        base = _base(folder / ADAPTER_CONFIG)
        raise ValueError(
            f"{folder} holds an adapter{base}, not a model: {', '.join(found)} are only the "
            f"changes to one. Caption with `paligemma caption --checkpoint {folder}`, or merge it "
            f"into its base: `paligemma merge BASE {folder} --out FOLDER`"
        )


def check_quantisation(settings: Any) -> None:
    """Raises ValueError with what to do, unless a `quantization_config` is one that can be read."""
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if settings is None or method == METHOD:
        return
    named = f" by {visible(method)[:40]}" if isinstance(method, str) else ""
    raise ValueError(
        f"its weights are quantised{named} (quantization_config), which is not read; only "
        f"{METHOD} is. {_DEQUANTISE}"
    )


def hints(names: Iterable[str], codes: Iterable[str]) -> list[str]:
    """Returns a line for each thing that a folder's tensors show it to be.

    Args:
      names: the tensors' names.
      codes: their dtypes in the file, such as "U8".
    """
    names = list(names)
    lines = []
    if any(map(_QUANTISED.search, names)) or any(map(_WHOLE_NUMBERS.fullmatch, codes)):
        lines.append(f"  The weights are quantised, which is not read. {_DEQUANTISE}.")
    if any(".lora_A" in name or ".lora_B" in name for name in names):
        lines.append(f"  An adapter of LoRA is among them. {_MERGE}.")
    return lines


def _base(path: Path) -> str:
    """Returns " of NAME" with the name of an adapter's base model, if it says so."""
    try:
        name = json_object(read_bounded(path, _MAX_BYTES)).get("base_model_name_or_path")
    except (ValueError, OSError):
        return ""
    return (
        f" of {visible(json.dumps(name, ensure_ascii=False))[:100]}"
        if isinstance(name, str)
        else ""
    )
