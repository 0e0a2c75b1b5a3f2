"""The default run: a small new model on drawn pictures, in a few minutes on two cores."""

from configs import base
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the run."""
    config = base.get_config()
    config.workdir = "workdir/demo"
    config.data.kind = "sample"
    config.data.name = "1500"
    config.model.vocab_size = 512
    config.stages = ({"from_step": 0, "trainable": ("all",), "top_layers": 0},)
    config.text_len = 160
    config.batch_size = 32
    config.microbatches = 4  # for less than 3 GiB of memory
    config.epochs = 2.0
    config.optimizer.learning_rate = 1e-3
    config.export = "nano.params.f16.npz"
    return config
