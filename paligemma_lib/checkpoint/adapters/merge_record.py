"""Records in a checkpoint which adapters it has merged into it, so that none is merged twice.

    metadata = with_merged(metadata_of("base.npz"), [Merged("ab12...", 0.5)])
    merged_adapters(metadata)                       # [Merged("ab12...", 0.5)]

The record travels with the file: as metadata of safetensors, and as the comment of an .npz file.
Training on, or saving with another program, loses it.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from paligemma_lib.checkpoint.huggingface.json_text import json_object

KEY = "merged_adapters"


@dataclasses.dataclass(frozen=True)
class Merged:
    """An adapter in a merged checkpoint: its `adapter_reading.fingerprint`, and its weight."""

    fingerprint: str
    weight: float


def merged_adapters(metadata: Mapping[str, str]) -> list[Merged]:
    """Returns the adapters that a checkpoint's metadata records; what is malformed is left out."""
    try:
        found = json_object(b'{"all": %s}' % metadata.get(KEY, "[]").encode())["all"]
    except (ValueError, KeyError):
        return []
    records = [each for each in found if _is_record(each)] if isinstance(found, list) else []
    return [Merged(each["sha256"], float(each["weight"])) for each in records]


def with_merged(metadata: Mapping[str, str], merged: Sequence[Merged]) -> dict[str, str]:
    """Returns the metadata with more adapters in its record."""
    everything = [*merged_adapters(metadata), *merged]
    records = [{"sha256": each.fingerprint, "weight": each.weight} for each in everything]
    return {**metadata, KEY: json.dumps(records)}


def _is_record(each: Any) -> bool:
    return (
        isinstance(each, dict)
        and isinstance(each.get("sha256"), str)
        and isinstance(each.get("weight"), int | float)
        and abs(each["weight"]) < 1e9
    )
