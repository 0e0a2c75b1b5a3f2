"""What a config says of its adapter, told before anything is loaded."""

import pytest

from paligemma_lib.run import ModelConfig, RunConfig, StageConfig
from paligemma_lib.run.adapter_checks import adapter
from paligemma_lib.run.setup import Setup
from paligemma_lib.run.training_config import LoraConfig

LORA = (StageConfig(trainable=("lora",)),)
BOTH = (StageConfig(trainable=("lora",)), StageConfig(from_step=9, trainable=("lora", "projector")))


def told(rank=0, stages=(), checkpoint="nano", export="", **lora):
    return adapter(
        Setup(
            RunConfig(
                model=ModelConfig(checkpoint=checkpoint),
                stages=stages or (StageConfig(),),
                lora=LoraConfig(rank=rank, **lora),
                export=export,
            )
        )
    )


def test_its_size_is_told():
    assert told() == "none"
    # nano has 4 layers, D = 192, four heads of 48, and one key head: twice (192 + 192) * 4 and
    # twice (192 + 48) * 4, and 4 scales, of each layer.
    assert told(4, LORA) == "LoRA of rank 4 beside 4 products: 19,984 parameters"
    assert told(4, LORA, dora=True).startswith("DoRA of rank 4 beside 4 products: ")
    assert told(4, BOTH, export="whole.npz")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 4}, r"rank=4 has no effect, .* '--config.stages\[0\].trainable=lora'"),
        ({"stages": LORA}, "there is no adapter: give lora.rank=16"),
        ({"dropout": 0.1}, "the other options of lora have no effect"),
        ({"rank": 4, "stages": LORA, "checkpoint": ""}, "needs a base model .* model.checkpoint"),
        ({"rank": 4, "stages": BOTH}, "train projector beside lora, .* export=NAME.npz"),
        ({"rank": 100, "stages": LORA}, "rank 100 is above the smaller side of 2 matrices"),
        ({"rank": 4, "stages": LORA, "targets": ("attn",)}, "'attn' selects nothing"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        told(**options)
