"""Pictures and captions to batches: tf.data, without JAX.

    source = from_tfds("flickr8k_tfds", split="train[:1200]")
    batches = train_batches(source, tokenizer, image_size=224, text_len=128, captions="packed",
                            batch_size=32, seed=0)

The names load when touched (PEP 562), so that `paligemma_lib.data.text` and `.order`, which are
NumPy alone, do not cost TensorFlow.
"""

import importlib
from typing import Any

_HOMES = {
    "decode_image": "image",
    "Batches": "batches",
    "eval_batches": "pipeline",
    "train_batches": "pipeline",
    "Record": "sources",
    "Source": "sources",
    "from_folder": "tables",
    "from_jsonl": "tables",
    "from_pictures": "image_files",
    "from_tfds": "sources",
    "from_tfrecords": "sources",
    "replace_damaged": "replacing",
    "pack": "text",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
