"""Fine-tunes PaliGemma 3B on Flickr8k's training split, on a TPU pod or a machine with GPUs.

    paligemma finetune --config=pod --config.workdir=gs://bucket/run

Start the same command on every machine, with a workdir and a data set (`--config.data.dir`) that
all machines can access. Parameters are sharded over all devices of a slice; all five captions of an
image train at once. docs/pods.md lists the slices on which this config fits, and configs that fit
on smaller slices.
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the config of the run."""
    config = base_config()
    config.workdir = "workdir/pod"
    config.model.checkpoint = "google/paligemma/jax/paligemma-3b-pt-224"
    config.model.dtype = "bfloat16"
    config.model.frozen_dtype = "bfloat16"
    config.lowercase = True
    config.batch_size = 256  # images, so 1,280 captions; a multiple of the number of devices
    config.epochs = 5.0
    config.optimizer.learning_rate = 1e-4
    config.decode_batch_size = 256
    config.export_dtype = "bfloat16"
    config.export = "paligemma_flickr8k.params.bf16.npz"
    return config
