"""A small new model on real photographs, from nothing, within an hour on two cores.

    tfds build flickr8k_tfds --manual_dir=FOLDER_OR_ZIP
    python examples/finetune.py --config=examples/configs/flickr8k_scratch.py

It learns to name what most pictures of Flickr8k are of: dogs, water, snow, people in colours. The
scores are of the development split, which has no part in the training.
"""

from configs import base
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the run."""
    config = base.get_config()
    config.workdir = "workdir/flickr8k_scratch"
    config.data.validation = "validation[:256]"
    config.data.test = "validation"
    config.model.vocab_size = 2048
    config.stages = ({"from_step": 0, "trainable": ("all",), "top_layers": 0},)
    config.text_len = 112
    config.lowercase = True
    config.truncate = True  # one picture in fifty has longer captions
    config.batch_size = 32
    config.epochs = 9.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.evaluate_before = False
    config.decode_batch_size = 50
    config.max_new_tokens = 32
    config.export = "flickr8k_scratch.params.f16.npz"
    return config
