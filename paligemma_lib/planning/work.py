"""What is to be planned: a model, what a run does with it, and where.

    job = Job(paligemma_3b(), Training(RunConfig(batch_size=256)), "v5e:2x4")

Jobs go to another process, which compiles them, as JSON.
"""

import dataclasses
from typing import Any

from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.options import parse
from paligemma_lib.sharding import Layout


@dataclasses.dataclass(frozen=True)
class Training:
    """A step of a run in one of its stages."""

    config: RunConfig
    stage: int = 0


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Greedy captions for a batch of a run's test images.

    Attributes:
      config: the run.
      layout: how parameters lie, see `sharding.param_shardings`.
      prompt_len: tokens of the prompt.
    """

    config: RunConfig
    layout: Layout = "replicated"
    prompt_len: int = 4


@dataclasses.dataclass(frozen=True)
class Job:
    """A model at work on a topology, named as `slices.Slices` has it.

    `model` counts where the run's config says something else of it, such as `remat`.
    """

    model: PaliGemmaConfig
    work: Training | Decoding
    topology: str
    slices: int = 1

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        kind = type(self.work).__name__
        work = {**vars(self.work), "config": self.work.config.to_dict(), "kind": kind}
        return {**vars(self), "model": dataclasses.asdict(self.model), "work": work}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Job":
        """Undoes `to_json`."""
        model, work = dict(values["model"]), dict(values["work"])
        model["vision"] = SiglipConfig(**model["vision"])
        model["language"] = GemmaConfig(**model["language"])
        work["config"] = parse(RunConfig, work["config"])
        kind = {"Training": Training, "Decoding": Decoding}[work.pop("kind")]
        return cls(PaliGemmaConfig(**model), kind(**work), values["topology"], values["slices"])
