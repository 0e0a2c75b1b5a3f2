"""Makes the training and validation batches that a config describes.

batches = train_batches_of(config, source, tokenizer, image_size=224, start_step=0)
for batch in eval_batches_of(config, source, tokenizer, image_size=224): ...
"""

from collections.abc import Iterator
from typing import Any

import jax

from paligemma_lib.batch import Batch
from paligemma_lib.data.batches import Batches
from paligemma_lib.data.pipeline import eval_batches, train_batches
from paligemma_lib.data.sources import Source
from paligemma_lib.run.config import RunConfig
from paligemma_lib.tokenizer import Tokenizer


def train_batches_of(
    config: RunConfig, source: Source, tokenizer: Tokenizer, *, image_size: int, start_step: int
) -> Batches:
    """Returns this process's rows of the training batches, from `start_step` on."""
    return train_batches(
        source,
        tokenizer,
        seed=config.seed,
        captions=config.captions,
        on_corrupt_image=config.data.on_corrupt_image,
        min_crop_area=config.data.min_crop_area,
        horizontal_flip=config.data.horizontal_flip,
        start_step=start_step,
        **_common(config, image_size),
    )


def eval_batches_of(
    config: RunConfig, source: Source, tokenizer: Tokenizer, *, image_size: int
) -> Iterator[Batch]:
    """Returns this process's rows of the validation batches."""
    return eval_batches(source, tokenizer, **_common(config, image_size))


def _common(config: RunConfig, image_size: int) -> dict[str, Any]:
    return {
        "image_size": image_size,
        # That of a run which was prepared is set; before, it may be 0.
        "text_len": config.assumed_text_len,
        "batch_size": config.batch_size,
        "prefix": config.prompt,
        "lowercase": config.lowercase,
        "truncate": config.truncate,
        "image_dtype": "uint8",
        "apply_exif": config.data.apply_exif,
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }
