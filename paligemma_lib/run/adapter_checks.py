"""Checks what a config says of its adapter, before anything is loaded.

    print(adapter(setup))           # rank 16 beside 4 products: 2,654,208 parameters

It is among the checks of `checks`, with the same errors.
"""

import math

from paligemma_lib.model.adapter_params import MARK
from paligemma_lib.model.projections import selected
from paligemma_lib.run.setup import Setup
from paligemma_lib.run.training_config import LoraConfig


def adapter(setup: Setup) -> str:
    """Checks that an adapter trains, has a base to be loaded with, and is what is exported."""
    config, lora = setup.config, setup.config.lora
    patterns = {each for stage in config.stages for each in stage.trainable}
    if not lora.rank:
        if "lora" in patterns:
            raise ValueError("a stage trains lora, but there is no adapter: give lora.rank=16")
        if lora != LoraConfig():
            raise ValueError("lora.rank=0: the other options of lora have no effect; give a rank")
        return "none"
    if "lora" not in patterns:
        raise ValueError(
            f"lora.rank={lora.rank} has no effect, as no stage trains lora. Give "
            "'--config.stages[0].trainable=lora', or stages=({'trainable': 'lora'},) in a file"
        )
    if not config.model.checkpoint:
        raise ValueError(
            "lora.rank: an adapter needs a base model that can be loaded again: give "
            "model.checkpoint"
        )
    beside = patterns - {"lora"}
    if beside and not config.export:
        raise ValueError(
            f"stages train {min(beside)} beside lora, which is no part of an adapter: give "
            "export=NAME.npz for the whole model"
        )
    size = sum(math.prod(spec.shape) for name, spec in setup.parameters.items() if MARK in name)
    kind, count = "DoRA" if lora.dora else "LoRA", len(selected(lora.targets))
    return f"{kind} of rank {lora.rank} beside {count} products: {size:,} parameters"
