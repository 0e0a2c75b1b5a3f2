"""Writes an adapter as a folder that PEFT opens.

    write_adapter("birds", adapters, base="google/paligemma-3b-pt-224", config=config)

    from peft import PeftModel
    model = PeftModel.from_pretrained(base_model, "birds")

`read_adapter` returns the same arrays, bit for bit if they are written in float32.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from paligemma_lib.checkpoint.adapters.adapter_folder import ADAPTER_MODEL, IMAGE_SIZE, TOKENIZER
from paligemma_lib.checkpoint.adapters.adapter_products import (
    Arrays,
    adapted_layers,
    products_of,
)
from paligemma_lib.checkpoint.adapters.adapter_reading import MAGNITUDE, A, B
from paligemma_lib.checkpoint.adapters.base_revision import without_revision
from paligemma_lib.checkpoint.adapters.peft_modules import (
    PREFIX,
    module_names,
    module_pattern,
)
from paligemma_lib.checkpoint.adapters.peft_settings import ADAPTER_CONFIG
from paligemma_lib.checkpoint.arrays import as_bytes, checked_dtype
from paligemma_lib.checkpoint.huggingface.format import header_bytes
from paligemma_lib.checkpoint.placement import to_host
from paligemma_lib.checkpoint.replaced_folder import replacing
from paligemma_lib.model.low_rank import scale_of
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.atomic import atomic_folder

_OURS = re.compile("|".join(map(re.escape, (ADAPTER_CONFIG, ADAPTER_MODEL, TOKENIZER))))


def write_adapter(
    folder: str | os.PathLike[str],
    adapters: Mapping[str, Any],
    *,
    base: str,
    config: PaliGemmaConfig,
    dtype: str = "float32",
    metadata: Mapping[str, str] = MappingProxyType({}),
    rslora: bool = False,
    layout: str = "transformers4.52",
    tokenizer: bytes | None = None,
) -> Path:
    """Writes adapter_config.json and adapter_model.safetensors, and returns the folder.

    The write is atomic. An earlier adapter is replaced; a folder with other files is an error.

    Args:
      folder: a local path.
      adapters: the arrays by name, as `model.adapter_params.adapters_of` returns them: NumPy
        arrays, or JAX arrays that this process holds wholly. A layer in which all arrays of a
        product are zeros, the scale too, is left out: it is not adapted.
      base: name of the base model, for `base_model_name_or_path` and `revision`.
      config: the base model, at the image size that the adapter is for, which the file tells.
      dtype: "float32", "bfloat16" or "float16".
      metadata: texts to keep in the file, by name; see `adapter_folder.adapter_metadata`.
      rslora: whether alpha is written as of rsLoRA, scale * sqrt(r), and not as scale * r. Both
        say the same.
      layout: names of modules, as a version of transformers has them: a key of
        `peft_modules.LAYOUTS`. The default opens with 4.52 and later ones, 5 too.
      tokenizer: a SentencePiece model to keep beside it, as `tokenizer.model`; None: the base's.

    Raises:
      FileExistsError: the folder holds something else than an adapter.
      FileNotFoundError: the folder's parent does not exist.
      ValueError: the arrays do not fit each other or the model, nothing is adapted, only some
        products have magnitudes, or a value is NaN, infinite or too large for `dtype`.
      OSError: the disk is full, or fails in another way.
    """
    kind = checked_dtype(dtype) or np.dtype(np.float32)
    products = {name: arrays for name, arrays in products_of(adapters, config).items()
                if adapted_layers(arrays)}  # fmt: skip
    _check(products)
    tensors = {
        name: np.concatenate(list(to_host(name, values, kind)))
        for name, values in _tensors(products, config, layout).items()
    }
    settings = _settings(products, base, rslora)
    with replacing(folder, _OURS, ADAPTER_CONFIG) as place, atomic_folder(place) as partial:
        (partial / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        with (partial / ADAPTER_MODEL).open("wb") as file:
            header = {name: (values.shape, values.dtype) for name, values in tensors.items()}
            size = {IMAGE_SIZE: str(config.vision.image_size)}
            file.write(header_bytes(header, {**size, **metadata}))
            for values in tensors.values():
                file.write(as_bytes(values))
        if tokenizer is not None:
            (partial / TOKENIZER).write_bytes(tokenizer)
    return Path(folder)


def _check(products: Mapping[str, Arrays]) -> None:
    if not products:
        raise ValueError("write_adapter: nothing is adapted, all arrays are zeros")
    without = [name for name, arrays in products.items() if "magnitude" not in arrays]
    if without and len(without) < len(products):
        raise ValueError(
            f"write_adapter: {', '.join(without)} have no magnitude, but others have: an adapter "
            "of PEFT is LoRA or DoRA as a whole"
        )


def _tensors(
    products: Mapping[str, Arrays], config: PaliGemmaConfig, layout: str
) -> dict[str, np.ndarray]:
    """Returns the tensors of the file by name, outputs first."""
    layers = {name: set(adapted_layers(arrays)) for name, arrays in products.items()}
    tensors = {}
    for module, (product, layer) in module_names(config, layout).items():
        if layer not in layers.get(product, ()):
            continue
        arrays, stem = products[product], f"{PREFIX}{module}"
        tensors[stem + A] = np.ascontiguousarray(arrays["a"][layer].T)
        tensors[stem + B] = np.ascontiguousarray(arrays["b"][layer].T)
        if "magnitude" in arrays:
            tensors[stem + MAGNITUDE] = arrays["magnitude"][layer]
    return tensors


def _settings(products: Mapping[str, Arrays], base: str, rslora: bool) -> dict[str, Any]:
    """Returns the content of adapter_config.json."""
    targets: list[str] = []
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for product, arrays in products.items():
        depth, _, rank = arrays["a"].shape
        layers = adapted_layers(arrays)
        targets.append(module_pattern(product, layers, depth))
        ranks[targets[-1]] = rank
        # Layers of one alpha share a pattern.
        same: dict[float, list[int]] = {}
        for layer in layers:
            same.setdefault(_alpha(arrays["scale"][layer], rank, rslora), []).append(layer)
        alphas |= {module_pattern(product, same[alpha], depth): alpha for alpha in same}
    usual_rank = Counter(ranks.values()).most_common(1)[0][0]
    usual_alpha = Counter(alphas.values()).most_common(1)[0][0]
    name, revision = without_revision(base)
    return {
        "peft_type": "LORA",
        "auto_mapping": {
            "base_model_class": "PaliGemmaForConditionalGeneration",
            "parent_library": "transformers.models.paligemma.modeling_paligemma",
        },
        "base_model_name_or_path": name,
        "revision": revision,
        "task_type": None,
        "inference_mode": True,
        "r": usual_rank,
        "lora_alpha": usual_alpha,
        "lora_dropout": 0.0,
        "use_rslora": rslora,
        "use_dora": any("magnitude" in arrays for arrays in products.values()),
        "target_modules": rf"(.*\.)?({'|'.join(targets)})",
        "rank_pattern": {key: rank for key, rank in ranks.items() if rank != usual_rank},
        "alpha_pattern": {key: alpha for key, alpha in alphas.items() if alpha != usual_alpha},
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def _alpha(scale: np.float32, rank: int, rslora: bool) -> float:
    """Returns the alpha from which `scale` comes back: a whole number, if one does."""
    alpha = float(scale) / scale_of(1.0, rank, rslora)
    near = round(alpha)
    if np.float32(scale_of(near, rank, rslora)) == scale:
        return near
    return alpha
