"""What is to be planned: a model, what it does, and where.

    job = Job(paligemma_3b(), Training(batch_size=256, text_len=128), "v5e:2x4")

Jobs go to another process, which compiles them, as JSON.
"""

import dataclasses
from typing import Any, Literal

from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig
from paligemma_lib.trainable import Select


@dataclasses.dataclass(frozen=True)
class Training:
    """A step of training.

    Attributes:
      batch_size: examples, over all devices.
      text_len: text slots of an example.
      trainable: see `trainable.trained_rows`.
      optimizer: see `train.make_optimizer`.
      microbatches: see `train.make_train_step`.
      fsdp: over how many devices parameters are split; None: all of a slice.
      frozen_dtype: of parameters that do not train.
    """

    batch_size: int
    text_len: int
    trainable: tuple[Select, ...] = (Select("attention"),)
    optimizer: str = "adamw"
    microbatches: int = 1
    fsdp: int | None = None
    frozen_dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Greedy captions for a batch of pictures.

    Attributes:
      batch_size: pictures, over all devices.
      max_new_tokens: of a caption.
      prompt_len: tokens of the prompt.
      layout: how parameters lie, see `sharding.param_shardings`.
      dtype: of parameters.
    """

    batch_size: int
    max_new_tokens: int
    prompt_len: int = 4
    layout: Literal["fsdp", "tensor", "replicated"] = "replicated"
    dtype: str = "bfloat16"


@dataclasses.dataclass(frozen=True)
class Job:
    """A model at work on a topology, named as `slices.Slices` has it."""

    model: PaliGemmaConfig
    work: Training | Decoding
    topology: str
    slices: int = 1

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Job":
        """Undoes `to_json`, also after JSON has made lists of tuples."""
        model, work = dict(values["model"]), dict(values["work"])
        model["vision"] = SiglipConfig(**model["vision"])
        model["language"] = GemmaConfig(**model["language"])
        made: Training | Decoding
        if "trainable" in work:
            work["trainable"] = tuple(Select(**each) for each in work["trainable"])
            made = Training(**work)
        else:
            made = Decoding(**work)
        return cls(PaliGemmaConfig(**model), made, values["topology"], values["slices"])
