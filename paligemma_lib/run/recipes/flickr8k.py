"""PaliGemma 3B on Flickr8k, attention alone: the recipe for one GPU or a few.

1,200 images to train on, 300 to validate, learning rate 5e-5, batches of 10, 10 epochs.
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = base_config()
    config.workdir = "workdir/flickr8k"
    config.data.train = "train[:1200]"
    config.data.validation = "train[1200:1500]"
    config.model.checkpoint = "google/paligemma/jax/paligemma-3b-pt-224"
    config.model.frozen_dtype = "float16"
    config.model.remat = "full"
    config.captions = "sample"  # as the recipe does; "packed" learns all five at the same price
    config.lowercase = True
    config.batch_size = 10
    config.epochs = 10.0
    config.optimizer.learning_rate = 5e-5
    return config
