"""PaliGemma 3B on the training split of Flickr8k, on a TPU slice: bfloat16, 256 pictures a step.

    python examples/finetune.py --config=examples/configs/pod.py --config.workdir=gs://BUCKET/run \
        --config.data.dir=gs://BUCKET/tensorflow_datasets \
        --config.model.checkpoint=gs://BUCKET/paligemma-3b-pt-224.f16.npz
"""

from configs import base
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = base.get_config()
    config.workdir = "gs://BUCKET/run"
    config.data.dir = "gs://BUCKET/tensorflow_datasets"
    config.model.checkpoint = "gs://BUCKET/paligemma-3b-pt-224.f16.npz"
    config.model.frozen_dtype = "bfloat16"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.batch_size = 256
    config.epochs = 5.0
    config.optimizer.learning_rate = 1e-4
    config.decode_batch_size = 256
    config.export = "paligemma_flickr8k.params.b16.npz"
    config.export_dtype = "bfloat16"
    return config
