"""Describes a job to plan: a model, its work (training or decoding), and a topology.

    job = Job(paligemma_3b(), Training(RunConfig(batch_size=256)), "v5e:2x4")

Jobs are serialized as JSON, since another process compiles them.
"""

import dataclasses
from typing import Any

from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.options import parse
from paligemma_lib.sharding import Layout


@dataclasses.dataclass(frozen=True)
class Training:
    """One training step of a run.

    Attributes:
      config: the config of the run.
      stage: index of the stage in `config.stages`.
    """

    config: RunConfig
    stage: int = 0


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Greedy decoding of captions for one batch of a run's test images.

    Attributes:
      config: the config of the run.
      layout: layout of the parameters, see `sharding.param_shardings`.
      prompt_len: number of tokens of the prompt.
    """

    config: RunConfig
    layout: Layout = "replicated"
    prompt_len: int = 4


@dataclasses.dataclass(frozen=True)
class Job:
    """A model, its work, and the topology to compile for.

    Where `model` and the run's config differ, for instance in `remat`, `model` decides.

    Attributes:
      model: the model.
      work: a training step or the decoding of a batch.
      topology: a name that `slices.Slices.named` reads, such as "v5e:2x4".
      slices: number of such slices.
    """

    model: PaliGemmaConfig
    work: Training | Decoding
    topology: str
    slices: int = 1

    def to_json(self) -> dict[str, Any]:
        """Returns the job as plain data for JSON, which `from_json` reads."""
        kind = type(self.work).__name__
        work = {**vars(self.work), "config": self.work.config.to_dict(), "kind": kind}
        return {**vars(self), "model": dataclasses.asdict(self.model), "work": work}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Job":
        """Returns the job that `to_json` wrote."""
        model, work = dict(values["model"]), dict(values["work"])
        model["vision"] = SiglipConfig(**model["vision"])
        model["language"] = GemmaConfig(**model["language"])
        work["config"] = parse(RunConfig, work["config"])
        kind = {"Training": Training, "Decoding": Decoding}[work.pop("kind")]
        return cls(PaliGemmaConfig(**model), kind(**work), values["topology"], values["slices"])
