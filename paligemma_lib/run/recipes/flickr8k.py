"""Fine-tunes the attention of PaliGemma 3B on Flickr8k, on one or a few GPUs.

1,200 training images, 300 validation images, learning rate 5e-5, batches of 10, 10 epochs.
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the config of the recipe."""
    config = base_config()
    config.workdir = "workdir/flickr8k"
    config.data.train = "train[:1200]"
    config.data.validation = "train[1200:1500]"
    config.model.checkpoint = "google/paligemma/jax/paligemma-3b-pt-224"
    config.model.frozen_dtype = "float16"
    config.model.remat = "full"
    config.captions = "sample"  # as the recipe does; "packed" trains all five at the same cost
    config.lowercase = True
    config.batch_size = 10
    config.epochs = 10.0
    config.optimizer.learning_rate = 5e-5
    return config
