"""Fine-tunes an adapter beside PaliGemma 2 10B's weights in 4 bits, on one GPU with 16 GB."""

from ml_collections import ConfigDict

from paligemma_lib.run.recipes import qlora


def get_config() -> ConfigDict:
    """Returns the config of the recipe."""
    config = qlora.get_config()
    config.workdir = "workdir/qlora_10b"
    config.model.checkpoint = "google/paligemma-2/jax/paligemma2-10b-pt-224"
    return config
