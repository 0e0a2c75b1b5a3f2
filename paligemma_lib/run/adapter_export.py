"""Writes the adapter that a run has trained to its workdir, as a folder of PEFT.

export_adapter(prepared, state)             # workdir/adapter
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from paligemma_lib.checkpoint.adapters import write_adapter
from paligemma_lib.checkpoint.adapters.adapter_folder import BASE_STORAGE, IN_WORKDIR
from paligemma_lib.checkpoint.gathering import gather_params
from paligemma_lib.model.adapter_params import adapters_of
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.prepare import Prepared
from paligemma_lib.runtime.atomic import atomic_write, is_remote
from paligemma_lib.train import TrainState


def export_adapter(prepared: Prepared, state: TrainState) -> Path:
    """Writes the adapter, and returns its folder. All processes call it; the main one writes.

    Raises:
      FileExistsError: the folder holds something else than an adapter.
      OSError: the disk is full, or fails in another way.
    """
    target = prepared.workdir / IN_WORKDIR
    arrays = gather_params(adapters_of(state.averaged_params()))
    if jax.process_index() > 0:
        return target
    arrays = {name: _whole(leaf) for name, leaf in arrays.items()}
    for name, spec in prepared.setup.parameters.items():
        if name.endswith("/a") and name in arrays and spec.first_trained:
            # Layers below those that train have no adapter: there B is zero.
            product = name.removesuffix("a")
            for each in [each for each in arrays if each.startswith(product)]:
                arrays[each][: spec.first_trained] = 0
    options: dict[str, Any] = {
        "base": base_name(prepared.config),
        "config": prepared.model,
        "metadata": {BASE_STORAGE: prepared.config.model.frozen_dtype},
        "rslora": prepared.config.lora.rslora,
        "tokenizer": prepared.tokenizer.serialized(),
    }
    if not is_remote(target):
        return write_adapter(target, arrays, **options)
    with tempfile.TemporaryDirectory() as folder:
        written = write_adapter(Path(folder, IN_WORKDIR), arrays, **options)
        # The file that makes the folder an adapter comes last.
        for path in sorted(written.iterdir(), reverse=True):
            with atomic_write(target / path.name) as file:
                file.write(path.read_bytes())
    return target


def base_name(config: RunConfig) -> str:
    """Returns the name by which the base model is found again: a path is made absolute."""
    name = config.model.checkpoint
    if name == "nano" or is_remote(name):  # nano is the library's, whatever lies here
        return name
    return os.path.abspath(name) if os.path.exists(name) else name


def _whole(leaf: Any) -> np.ndarray:
    parts = leaf if isinstance(leaf, tuple) else (leaf,)
    return np.concatenate([np.array(part, np.float32) for part in parts])
