"""Pictures and captions to batches: tf.data, without JAX.

    source = from_tfds("flickr8k_tfds", split="train[:1200]")
    batches = train_batches(source, tokenizer, image_size=224, text_len=128, captions="packed",
                            batch_size=32, seed=0)

The names load when touched (PEP 562), so that `paligemma_lib.data.text` and `.order`, which are
NumPy alone, do not cost TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees
    from paligemma_lib.data.batches import Batches as Batches
    from paligemma_lib.data.given_images import from_images as from_images
    from paligemma_lib.data.image import decode_image as decode_image
    from paligemma_lib.data.image_files import from_pictures as from_pictures
    from paligemma_lib.data.pipeline import eval_batches as eval_batches
    from paligemma_lib.data.pipeline import train_batches as train_batches
    from paligemma_lib.data.replacing import replace_damaged as replace_damaged
    from paligemma_lib.data.sources import Record as Record
    from paligemma_lib.data.sources import Source as Source
    from paligemma_lib.data.sources import from_tfds as from_tfds
    from paligemma_lib.data.sources import from_tfrecords as from_tfrecords
    from paligemma_lib.data.tables import from_folder as from_folder
    from paligemma_lib.data.tables import from_jsonl as from_jsonl
    from paligemma_lib.data.text import pack as pack

_HOMES = {
    "decode_image": "image",
    "Batches": "batches",
    "eval_batches": "pipeline",
    "train_batches": "pipeline",
    "Record": "sources",
    "Source": "sources",
    "from_folder": "tables",
    "from_images": "given_images",
    "from_jsonl": "tables",
    "from_pictures": "image_files",
    "from_tfds": "sources",
    "from_tfrecords": "sources",
    "replace_damaged": "replacing",
    "pack": "text",
}

__all__ = sorted(_HOMES)

if not TYPE_CHECKING:  # or every name would be of type Any

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
