"""Makes the objects that a config names: optimizer, trainable parameters, step and sampler.

    optimizer = optimizer_of(config, total_steps=1200)
    step = train_step_of(config, model, optimizer, mesh)

The run, its checks and `paligemma plan` all call these functions, so that they agree on what a
config means.
"""

from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from paligemma_lib.batch import Batch
from paligemma_lib.decode import Beam, Greedy
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.model.adapter_params import LowRank
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.parameter_spec import ParameterSpec, parameter_spec
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.dotted import is_dotted, load_dotted
from paligemma_lib.run.training_config import StageConfig
from paligemma_lib.train import Optimizer, TrainState, make_optimizer, make_train_step
from paligemma_lib.train.overflow import Overflow, make_overflow_search
from paligemma_lib.trainable import Select


def optimizer_of(config: RunConfig, total_steps: int = 1) -> Optimizer:
    """Makes the optimizer for a run of `total_steps` steps."""
    options = config.optimizer
    return make_optimizer(
        options.name,
        learning_rate=options.learning_rate,
        total_steps=total_steps,
        schedule=options.schedule,
        warmup_steps=round(options.warmup * total_steps),
        weight_decay=options.weight_decay,
        clip_norm=options.clip_norm or None,
        ema=options.ema,
    )


def sampler_of(name: str) -> Strategy:
    """Makes the sampler that a config names; raises ConfigError if its import fails."""
    if not is_dotted(name):
        return Greedy() if name == "greedy" else Beam(4)
    found = load_dotted(name, "sampler")
    return found() if isinstance(found, type) else found


def trainable_of(stage: StageConfig) -> tuple[Select, ...]:
    """Returns the selection of parameters that train in a stage."""
    return tuple(Select(pattern, stage.top_layers or None) for pattern in stage.trainable)


def low_rank_of(config: RunConfig) -> LowRank | None:
    """Returns what the adapter of a run is like; None if it has none."""
    lora = config.lora
    if not lora.rank:
        return None
    return LowRank(lora.rank, lora.alpha, lora.targets, rslora=lora.rslora, dora=lora.dora)


def parameters_of(config: RunConfig, model: PaliGemmaConfig) -> dict[str, ParameterSpec]:
    """Returns what becomes of each parameter of a run, in all its stages.

    Raises:
      ValueError: as in `parameter_spec`.
    """
    return parameter_spec(
        model,
        trainable=[trainable_of(stage) for stage in config.stages],
        frozen=config.model.frozen_dtype,
        low_rank=low_rank_of(config),
    )


def train_step_of(
    config: RunConfig, model: PaliGemmaConfig, optimizer: Optimizer, mesh: Mesh
) -> Callable[..., Any]:
    """Makes the jitted training step, see `train.make_train_step`."""
    return make_train_step(model, optimizer, mesh=mesh, **_loss_options(config))


def overflow_search_of(
    config: RunConfig, model: PaliGemmaConfig, mesh: Mesh
) -> Callable[[TrainState, Batch], Overflow | None]:
    """Makes what finds the gradients of a step that are not finite, see `train.overflow`."""
    return make_overflow_search(model, mesh=mesh, **_loss_options(config))


def _loss_options(config: RunConfig) -> dict[str, Any]:
    return {
        "microbatches": config.microbatches,
        "label_smoothing": config.label_smoothing,
        "z_loss": config.z_loss,
        "adapter_dropout": config.lora.dropout,
        "seed": config.seed,
    }
