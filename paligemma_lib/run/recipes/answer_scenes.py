"""Teaches nano to answer questions about drawn scenes: how many, where, what colour, is there.

paligemma sample-data questions --wording questions --count 3000
paligemma finetune --config=answer_scenes
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the config of the recipe."""
    config = base_config()
    config.workdir = "workdir/answer_scenes"
    config.data.train = "questions/questions.jsonl"
    config.model.checkpoint = "nano"
    config.task = "answer"
    config.stages = ({"from_step": 0, "trainable": ("all",), "top_layers": 0},)
    config.batch_size = 32
    config.epochs = 2.0
    config.optimizer.learning_rate = 2e-3
    config.test_images = 400
    config.max_new_tokens = 8
    config.export = "answer_scenes.params.f16.npz"
    return config
