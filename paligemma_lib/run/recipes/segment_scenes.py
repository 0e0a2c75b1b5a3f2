"""Teaches nano to outline things in drawn scenes, as <loc> tokens of a box and <seg> of its mask.

    paligemma sample-data masks --wording masks --masks vae-oid.npz --count 3000
    paligemma finetune --config=segment_scenes --config.masks=vae-oid.npz

The vocabulary of nano has neither, so it spells each <loc> in nine tokens, and each <seg> in seven.
PaliGemma has them, and needs a seventh of the text.

Where the published codec is not at hand, benchmarks/train_mask_codec.py trains one on drawn things.
"""

from ml_collections import ConfigDict

from paligemma_lib.run import base_config


def get_config() -> ConfigDict:
    """Returns the config of the recipe."""
    config = base_config()
    config.workdir = "workdir/segment_scenes"
    config.data.train = "masks/masks.jsonl"
    config.model.checkpoint = "nano"
    config.task = "segment"
    config.masks = "vae-oid.npz"
    config.stages = ({"from_step": 0, "trainable": ("all",), "top_layers": 0},)
    config.batch_size = 32
    config.microbatches = 2
    config.epochs = 2.0
    config.optimizer.learning_rate = 1e-3
    config.evaluate_before = False  # it writes no masks before
    config.test_images = 150
    config.max_new_tokens = 160  # of a box and its mask
    config.export = "segment_scenes.params.f16.npz"
    return config
