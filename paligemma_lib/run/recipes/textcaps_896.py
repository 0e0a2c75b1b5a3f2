"""Fine-tunes PaliGemma 3B's attention at 896 pixels, on captions that read text (TextCaps).

The data are the Hub's `lmms-lab/TextCaps`; any other path in `data.train` takes their place.
"""

from ml_collections import ConfigDict

from paligemma_lib.run.recipes import flickr8k_448


def get_config() -> ConfigDict:
    """Returns the config of the recipe."""
    config = flickr8k_448.get_config()
    config.workdir = "workdir/textcaps_896"
    config.data.train = "lmms-lab/TextCaps"
    config.data.validation = "val[:1000]"
    config.data.test = "val[1000:]"  # its test split has no captions
    config.data.caption_column = "caption_str"
    config.model.checkpoint = "google/paligemma/jax/paligemma-3b-pt-896"
    config.batch_size = 8
    config.microbatches = 8
    config.decode_batch_size = 4
    config.epochs = 1.0
    return config
