"""Describes an adapter in a few lines, also where its base model is not at hand.

print(adapter_overview("birds"))
"""

import math
import os
from collections.abc import Mapping

from paligemma_lib.checkpoint.adapters.adapter_folder import (
    ADAPTER_MODEL,
    adapter_folder,
    adapter_metadata,
)
from paligemma_lib.checkpoint.adapters.adapter_reading import A, fingerprint, read_adapter
from paligemma_lib.checkpoint.adapters.peft_modules import PREFIX, product_of
from paligemma_lib.checkpoint.adapters.peft_settings import PeftSettings, read_settings
from paligemma_lib.checkpoint.huggingface.format import Entry, read_header
from paligemma_lib.checkpoint.stored import read_config
from paligemma_lib.runtime.visible_text import visible

_TOWERS = {"llm": "the language model", "img": "the vision model"}


def adapter_overview(path: str | os.PathLike[str]) -> str:
    """Returns what an adapter is, what it adapts, and whether it fits its base model.

    Args:
      path: the folder of an adapter, or the workdir of a run that trained one.

    Raises:
      FileNotFoundError: the folder, or a file in it, does not exist.
      ValueError: it has something that is not understood, is damaged, does not fit the base model
        that it names, or holds values that are NaN or infinite.
    """
    folder = adapter_folder(path)
    settings, entries = read_settings(folder), read_header(folder / ADAPTER_MODEL)
    count = sum(math.prod(entry.shape) for entry in entries.values())
    size = sum(entry.num_bytes for entry in entries.values())
    types = " and ".join(sorted({str(each.dtype or each.code) for each in entries.values()}))
    kept = [f"{visible(k)}: {visible(v)}"[:200] for k, v in adapter_metadata(folder).items()]
    return "\n".join(
        [
            f"{os.fspath(path)}: {_kind(settings)}, {types}",
            *_adapted(entries),
            f"{count:,} parameters in {size:,} bytes; {_fits(folder, settings)}",
            *kept[:8],
        ]
    )


def _kind(settings: PeftSettings) -> str:
    kind = "DoRA" if settings.dora else "LoRA"
    divided = " / sqrt(rank)" if settings.rslora else " / rank"
    several = ", others for some modules" if settings.rank_pattern or settings.alpha_pattern else ""
    base = visible(settings.base)[:200] or "a base model without a name"
    return (
        f"an adapter ({kind}) of {base}, rank {settings.rank}, scale {settings.alpha:g}{divided}"
        f"{several}"
    )


def _adapted(entries: Mapping[str, Entry]) -> list[str]:
    """Returns a line for products of equal ranks in equally many layers of a tower."""
    found: dict[str, list[int]] = {}
    other = 0
    for name, entry in entries.items():
        if name.endswith(A):
            if known := product_of(name.removeprefix(PREFIX).removesuffix(A)):
                found.setdefault(known[0], []).append(entry.shape[0] if entry.shape else 0)
            else:
                other += 1
    alike: dict[tuple[str, int, str], list[str]] = {}
    for product, ranks in found.items():
        tower, _, own = product.partition("/")
        rank = " to ".join(map(str, sorted({min(ranks), max(ranks)})))
        where = "the projector" if own == "projector" else _TOWERS[tower]
        alike.setdefault((where, len(ranks), rank), []).append(own)
    lines = [
        where if where == "the projector" else f"{', '.join(own)} in {layers} layers of {where}"
        for (where, layers, _), own in alike.items()
    ]
    lines = [f"{line}, rank {rank}" for line, (_, _, rank) in zip(lines, alike, strict=True)]
    return [*lines, *[f"{other:,} modules that are not PaliGemma's"] * bool(other)]


def _fits(folder: os.PathLike[str], settings: PeftSettings) -> str:
    if not settings.base:
        return "not compared with a base model, as none is named"
    try:
        config = read_config(settings.base)
    except (OSError, ValueError):
        return "not compared with the base model, which is not here"
    arrays = read_adapter(folder, config)
    return f"they fit the base, all values are finite, fingerprint {fingerprint(arrays)[:16]}"
