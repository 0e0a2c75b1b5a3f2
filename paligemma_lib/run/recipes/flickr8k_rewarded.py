"""Trains the small model of `flickr8k_scratch` for the CIDEr of captions that it writes itself.

paligemma finetune --config=flickr8k_scratch
paligemma finetune --config=flickr8k_rewarded
"""

from ml_collections import ConfigDict

from paligemma_lib.run.recipes import flickr8k_scratch


def get_config() -> ConfigDict:
    """Returns the config of the run."""
    config = flickr8k_scratch.get_config()
    config.model.checkpoint = config.workdir
    config.workdir = "workdir/flickr8k_rewarded"
    config.reward.name = "cider"
    config.stages = ({"from_step": 0, "trainable": ("all",), "top_layers": 0},)
    config.text_len = 0  # captions of people are references here, and not cut
    config.truncate = False
    config.data.min_crop_area = 0.6  # what a caption is worth is said of the whole image
    config.epochs = 4.0
    config.optimizer.learning_rate = 2e-4
    config.optimizer.weight_decay = 0.0
    config.optimizer.ema = 0.99
    config.max_new_tokens = 24
    return config
