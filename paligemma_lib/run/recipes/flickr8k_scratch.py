"""Trains a small new model from scratch on real photographs, within an hour on two CPU cores.

    tfds build flickr8k_tfds --manual_dir=FOLDER_OR_ZIP
    python examples/pretrain_words.py
    paligemma finetune --config=flickr8k_scratch

The second command teaches the vision tower which words people use. The model then learns to name
what most images of Flickr8k show: dogs, water, snow, people in coloured clothes. Scores are those
of the development split, on which it does not train. The run decodes greedily; `paligemma evaluate`
finds better captions with --sampler=beam --length-penalty=1.
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the config of the run."""
    config = base_config()
    config.workdir = "workdir/flickr8k_scratch"
    config.data.validation = "validation[:256]"
    config.data.test = "validation"
    config.data.min_crop_area = 0.4  # without crops, it memorizes the images
    config.data.horizontal_flip = True
    config.model.name = "scratch"
    config.model.checkpoint = "workdir/words/words.params.npz"
    language = {"from_step": 0, "trainable": ("llm", "projector"), "top_layers": 0}
    config.stages = (language, {"from_step": 800, "trainable": ("all",), "top_layers": 0})
    config.text_len = 96
    config.lowercase = True
    config.truncate = True  # one image in nine has text that is too long
    config.batch_size = 16
    config.epochs = 8.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.ema = 0.998
    config.evaluate_before = False
    config.decode_batch_size = 50
    config.max_new_tokens = 32
    config.export = "flickr8k_scratch.params.f16.npz"
    return config
