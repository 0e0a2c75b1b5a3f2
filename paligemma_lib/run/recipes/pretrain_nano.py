"""Trains the packaged model nano from scratch, on 19,200 drawn images with labels.

    paligemma finetune --config=pretrain_nano
    cp workdir/pretrain_nano/{nano.params.f16.npz,tokenizer.model} paligemma_lib/nano/

Its scenes differ from those that the default run draws, and so does the style of its captions.
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the config of the run."""
    config = base_config()
    config.workdir = "workdir/pretrain_nano"
    config.seed = 2024
    config.data.name = "24000"  # drawn scenes
    config.data.wording = "labels"
    config.data.validation = "validation[:256]"
    config.data.test = "test[:256]"
    config.model.vocab_size = 512
    config.stages = ({"from_step": 0, "trainable": ("all",), "top_layers": 0},)
    config.text_len = 112
    config.batch_size = 32
    config.epochs = 3.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.02
    config.evaluate_before = False
    config.validate_every = 0.25
    config.save_every = 0.25
    config.export = "nano.params.f16.npz"
    return config
