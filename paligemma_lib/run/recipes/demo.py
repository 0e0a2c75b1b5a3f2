"""The default run: fine-tunes nano's attention on drawn images, in minutes on two CPU cores."""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the config of the run."""
    config = base_config()
    config.workdir = "workdir/demo"
    config.data.name = "1500"  # drawn scenes
    config.model.checkpoint = "nano"
    config.lowercase = True
    config.batch_size = 4  # with 32, far fewer captions are true after as many images
    config.epochs = 4.0
    config.optimizer.learning_rate = 2e-3
    config.validate_every = 1.0
    config.export = "nano_finetuned.params.f16.npz"
    return config
