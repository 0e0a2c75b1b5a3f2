"""Fine-tunes PaliGemma 3B on 90 images with long captions, as the fine-tuning notebook does.

The data are JSON lines of image, prefix and suffix: gs://longcap100. SGD, cosine schedule with 10 %
of warm-up steps, learning rate 0.03, batches of 8, 512 examples in total.
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the config of the recipe."""
    config = base_config()
    config.workdir = "workdir/longcap"
    config.data.kind = "jsonl"
    config.data.train = "gs://longcap100/data_train90.jsonl"
    config.data.validation = "gs://longcap100/data_val10.jsonl"
    config.data.test = "gs://longcap100/data_val10.jsonl"
    config.model.checkpoint = "google/paligemma/jax/paligemma-3b-pt-224"
    config.model.frozen_dtype = "float16"
    config.model.remat = "full"
    config.text_len = 128
    config.truncate = True  # as the notebook does
    config.batch_size = 8
    config.epochs = 512 / 90
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03
    config.optimizer.warmup = 0.1
    config.validate_every = config.epochs / 4
    config.max_new_tokens = 128
    return config
