"""Trains a model of nano's size from scratch, on scenes that are drawn as they are read.

    paligemma finetune --config=pretrain_nano
    cp workdir/pretrain_nano/{nano.params.f16.npz,tokenizer.model} paligemma_lib/nano/

Its scenes differ from those that the default run draws, and so does the style of its captions. The
packaged nano is of an earlier recipe, see `sample_data.labels`.
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config

_SCENES = 200_000


def get_config() -> ConfigDict:
    """Returns the config of the run."""
    config = base_config()
    config.workdir = "workdir/pretrain_nano"
    config.seed = 2024
    config.data.kind = "paligemma_lib.sample_data.pretraining_scenes:PretrainingScenes"
    config.data.train = f"0:{_SCENES}"  # one pass: no scene comes twice
    config.data.validation = f"{_SCENES}:{_SCENES + 512}"
    config.data.test = f"{_SCENES + 512}:{_SCENES + 768}"
    config.model.vocab_size = 512
    config.stages = ({"from_step": 0, "trainable": ("all",), "top_layers": 0},)
    config.batch_size = 16  # with 8, it learns faster at first, by the images that it has seen
    config.epochs = 1.0
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.02
    config.optimizer.ema = 0.999
    config.evaluate_before = False
    config.validate_every = 0.05
    config.save_every = 0.05
    config.export = "nano.params.f16.npz"
    return config
