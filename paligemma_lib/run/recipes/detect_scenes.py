"""Teaches nano to find things in drawn scenes, and to write where they are as <loc> tokens.

    paligemma sample-data boxes --wording boxes --count 3000
    paligemma finetune --config=detect_scenes

The vocabulary of nano has no <loc> tokens, so it spells each of them, in nine tokens. PaliGemma has
them, and needs a quarter of the text.
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the config of the recipe."""
    config = base_config()
    config.workdir = "workdir/detect_scenes"
    config.data.train = "boxes/boxes.jsonl"
    config.model.checkpoint = "nano"
    config.task = "detect"
    config.stages = ({"from_step": 0, "trainable": ("all",), "top_layers": 0},)
    config.batch_size = 32
    config.microbatches = 2
    config.epochs = 2.0
    config.optimizer.learning_rate = 1e-3
    config.evaluate_before = False  # it writes no boxes before
    config.test_images = 150
    config.max_new_tokens = 170  # of four boxes
    config.export = "detect_scenes.params.f16.npz"
    return config
