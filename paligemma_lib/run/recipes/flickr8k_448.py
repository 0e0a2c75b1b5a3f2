"""Fine-tunes PaliGemma 3B's attention on Flickr8k at 448 pixels, five captions an image."""

from ml_collections import ConfigDict

from paligemma_lib.run.recipes import flickr8k


def get_config() -> ConfigDict:
    """Returns the config of the recipe."""
    config = flickr8k.get_config()
    config.workdir = "workdir/flickr8k_448"
    config.data.train = "train"
    config.data.validation = "validation"
    config.model.checkpoint = "google/paligemma/jax/paligemma-3b-pt-448"
    config.model.frozen_dtype = "bfloat16"
    config.model.dtype = "bfloat16"
    config.captions = "packed"
    config.batch_size = 8
    config.microbatches = 4
    config.epochs = 3.0
    return config
