"""Trains the packaged nano from a tower that sees, on scenes that are drawn as they are read.

    python examples/pretrain_tower.py
    paligemma finetune --config=pretrain_nano
    cp workdir/pretrain_nano/nano.params.f16.npz workdir/tower/tokenizer.model paligemma_lib/nano/

Its scenes differ from those that the default run draws, and so does the style of its captions, see
`sample_data.labels`.
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config

_SCENES = 224_000
_WHOLE = 8_000  # step from which the tower trains, too


def get_config() -> ConfigDict:
    """Returns the config of the run."""
    config = base_config()
    config.workdir = "workdir/pretrain_nano"
    config.seed = 2024
    config.data.kind = "paligemma_lib.sample_data.pretraining_scenes:PretrainingScenes"
    config.data.train = f"0:{_SCENES}"  # one pass: no scene comes twice
    config.data.validation = "900000:900512"
    config.data.test = "900512:900768"
    config.model.checkpoint = "workdir/tower/nano.params.npz"
    language = {"from_step": 0, "trainable": ("llm", "projector"), "top_layers": 0}
    config.stages = (language, {"from_step": _WHOLE, "trainable": ("all",), "top_layers": 0})
    config.text_len = 28  # one label in a hundred is cut; each position costs as one of the image
    config.truncate = True
    config.max_new_tokens = 28
    config.batch_size = 16  # with 8, it learns faster at first, by the images that it has seen
    config.epochs = 1.0
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.02
    config.optimizer.ema = 0.998
    config.evaluate_before = False
    config.validate_every = 0.05
    config.save_every = 0.1
    config.export = "nano.params.f16.npz"
    return config
