"""Finds what belongs to a checkpoint: the base model of an adapter, and the tokenizer.

base, config = model_of("runs/birds")            # "nano", if that is an adapter of nano
tokenizer.load(tokenizer_of(base))
"""

import os
from pathlib import Path

from paligemma_lib import hub
from paligemma_lib.checkpoint import read_config
from paligemma_lib.checkpoint.adapters import base_of, find_adapter
from paligemma_lib.checkpoint.adapters.adapter_folder import TOKENIZER
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.atomic import is_remote, path_of
from paligemma_lib.runtime.visible_text import visible


def model_of(checkpoint: str | os.PathLike[str]) -> tuple[str, PaliGemmaConfig]:
    """Returns the name of a checkpoint, or of an adapter's base model, and its configuration.

    Raises:
      FileNotFoundError, ValueError: it is missing or damaged; of an adapter, the message says which
        base it needs.
    """
    adapter = find_adapter(checkpoint)
    base = base_of(adapter) if adapter else os.fspath(checkpoint)
    try:
        return base, read_config(base)
    except (ValueError, OSError) as error:
        if adapter is None:
            raise
        raise ValueError(
            f"{adapter} is an adapter of {visible(base)}, which cannot be loaded: {error}. If that "
            f"model is somewhere else, name it: --checkpoint BASE --adapter {adapter}, or "
            f'pg.load(BASE, adapters={{"{adapter.name}": ...}})'
        ) from error


def tokenizer_of(checkpoint: str, adapter: Path | None = None) -> Path:
    """Returns the file of a tokenizer of an adapter or a model, or else PaliGemma's, downloaded.

    It is `tokenizer.model` in the adapter's folder, where a run has put it; or that in or beside
    the checkpoint, or `tokenizer.json` where that lies alone.
    """
    if adapter and (adapter / TOKENIZER).is_file():
        return adapter / TOKENIZER
    return tokenizer_beside(checkpoint) or hub.fetch_tokenizer()


def tokenizer_beside(checkpoint: str) -> Path | None:
    """Returns the file of a tokenizer in or beside a checkpoint; None if there is none."""
    place = path_of(checkpoint if is_remote(checkpoint) else hub.fetch(checkpoint))
    folder = place if place.is_dir() else place.parent
    names = (TOKENIZER, "tokenizer.json")
    beside = [folder / name for name in names if (folder / name).is_file()]
    return beside[0] if beside else None
