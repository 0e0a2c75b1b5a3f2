"""Reads, writes and merges adapters: LoRA, rsLoRA and DoRA, in the folders of PEFT.

from paligemma_lib.checkpoint import adapters
from paligemma_lib.model.adapter_params import with_adapters

arrays = adapters.read_adapter("birds", config)
params = with_adapters(params, arrays)
adapters.write_adapter("copy", arrays, base="nano", config=config)

paligemma merge nano birds --out birds.npz
"""

from paligemma_lib.checkpoint.adapters.adapter_folder import (
    adapter_metadata,
    base_of,
    find_adapter,
    is_adapter,
)
from paligemma_lib.checkpoint.adapters.adapter_reading import fingerprint, read_adapter
from paligemma_lib.checkpoint.adapters.adapter_writing import write_adapter

__all__ = [
    "adapter_metadata",
    "base_of",
    "find_adapter",
    "fingerprint",
    "is_adapter",
    "read_adapter",
    "write_adapter",
]
