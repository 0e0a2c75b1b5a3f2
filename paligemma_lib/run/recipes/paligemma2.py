"""Fine-tunes PaliGemma 2 3B's attention on Flickr8k's training split, five captions an image."""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the config of the recipe."""
    config = base_config()
    config.workdir = "workdir/paligemma2"
    config.model.checkpoint = "google/paligemma-2/jax/paligemma2-3b-pt-224"
    config.model.frozen_dtype = "bfloat16"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.epochs = 3.0
    config.export = "paligemma2_flickr8k.params.b16.npz"
    config.export_dtype = "bfloat16"
    return config
