"""Trains a prepared run (second of four parts): the loop of steps, validations and checkpoints.

outcome = train(prepared)
outcome.state, outcome.history       # history: what metrics.jsonl has
outcome.stopped                      # SIGTERM came: all is saved; the same command continues
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from paligemma_lib.batch import Batch
from paligemma_lib.data.batches import Batches
from paligemma_lib.data.sources.protocol import epoch_len
from paligemma_lib.report import ParameterGroup
from paligemma_lib.run.assembly import optimizer_of, train_step_of, trainable_of
from paligemma_lib.run.batching import train_batches_of
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.damage import count_damage, recall_damage
from paligemma_lib.run.dotted import is_dotted, load_dotted
from paligemma_lib.run.prepare import Prepared
from paligemma_lib.run.tensorboard_tracker import TensorBoardTracker
from paligemma_lib.run.validate import Validation
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.termination import Termination
from paligemma_lib.train import (
    Checkpoints,
    Optimizer,
    Progress,
    Tracker,
    TrainState,
    init_state,
    restage,
)
from paligemma_lib.train.compatibility import CHECKPOINTS
from paligemma_lib.trainable import full_shape


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of training.

    Attributes:
      state: the state after the last step.
      history: the records of `metrics.jsonl`.
      stopped: whether SIGTERM ended training before its last step; it can be resumed.
    """

    state: TrainState
    history: Sequence[Mapping[str, float]]
    stopped: bool


def train(prepared: Prepared) -> Outcome:
    """Trains to the last step, or until a process receives SIGTERM.

    Training resumes from the newest whole checkpoint in the workdir, if there is one. It takes the
    memory of `prepared.params`, which is empty afterwards.

    Raises:
      ValueError: `max_skipped` steps in a row had gradients that are not finite; the message names
        the images whose loss is not finite. Or more than `max_corrupt` of the data are damaged.
      OSError: checkpoints or metrics could not be written.
    """
    config, mesh = prepared.config, prepared.mesh
    steps_per_epoch = epoch_len(prepared.data["train"]) / config.batch_size
    total_steps = max(1, round(config.epochs * steps_per_epoch))
    optimizer = optimizer_of(config, total_steps)
    first, *later = config.stages

    with Checkpoints(prepared.workdir / CHECKPOINTS, keep=config.keep) as checkpoints:
        start = init_state(
            prepared.model, prepared.params, optimizer, trainable=trainable_of(first), mesh=mesh
        )
        prepared.params.clear()  # the state holds them now; a second reference would keep memory
        # A checkpoint holds only what trained at its step. `_staged` applies the stages up to that
        # step to the state of step 0, so that names, shapes and shardings match the checkpoint.
        state = checkpoints.restore(functools.partial(_staged, start, later, optimizer))
        del start
        first_step = int(state.step)
        is_main = jax.process_index() == 0
        if is_main:
            print(trainable_summary(state))
        recall_damage(prepared)

        train_step = train_step_of(config, prepared.model, optimizer, mesh)
        batches = train_batches_of(
            config,
            prepared.data["train"],
            prepared.tokenizer,
            image_size=prepared.model.vision.image_size,
            start_step=first_step,
        )
        with (
            Termination(mesh) as termination,
            Progress(
                prepared.workdir,
                total_steps=total_steps,
                steps_per_epoch=steps_per_epoch,
                first_step=first_step,
                trackers=trackers_of(config) if is_main else (),
                silent=not is_main,
            ) as progress,
        ):
            validation = Validation(prepared, progress, termination)
            validate_every = config.validate_every * steps_per_epoch
            steps = range(first_step, total_steps)
            if first_step and is_due(first_step, total_steps, validate_every):
                # SIGTERM may have prevented the validation that was due at this step. Only the main
                # process has the history, so all processes take its answer.
                known = [each["step"] for each in progress.history if "validation_loss" in each]
                unknown = not processes.gather(b"known" if first_step in known else b"")[0]
                if unknown and validation.run(state, first_step) is None:
                    # SIGTERM again. A step now would move on to a state that is not the one to
                    # validate, so leave without any; the next start validates first.
                    steps = range(0)
            for step in steps:
                for stage in later:
                    if stage.from_step == step:
                        state = restage(state, optimizer, trainable_of(stage))
                with progress.waiting():
                    batch = next(batches)
                state, metrics = train_step(state, batch)
                progress.record(step, metrics, captions_in(batch))
                if progress.latest("skipped_in_a_row") >= config.max_skipped:
                    checkpoints.save(state, prepared.record)
                    losses = validation.losses(state, batch)
                    raise ValueError(_not_finite(config.max_skipped, losses, batches, step))

                done = step + 1
                validation_loss = None
                if not termination.agreed() and is_due(done, total_steps, validate_every):
                    validation_loss = validation.run(state, done)
                # All processes must stop after the same step, or the next collective operation
                # hangs. `agreed` returns the same answer in all of them.
                stop = termination.agreed()
                save_every = config.save_every * steps_per_epoch
                if stop or done == total_steps or is_due(done, total_steps, save_every):
                    progress.flush()
                    checkpoints.save(state, prepared.record, validation_loss)
                    count_damage(prepared)
                if stop:
                    break
            if termination.agreed():
                progress.say(int(state.step), "stopped; run the same command again to continue")
            return Outcome(state, progress.history, termination.agreed())


def trackers_of(config: RunConfig) -> list[Tracker]:
    """Starts the trackers that a config names; raises ConfigError if the import of one fails."""
    kinds = [
        load_dotted(name, "trackers") if is_dotted(name) else TensorBoardTracker
        for name in dict.fromkeys(config.trackers)
    ]
    return [kind(config.workdir, config.to_dict()) for kind in kinds]


def is_due(done: int, total: int, every: float) -> bool:
    """Whether something that is done every so many steps is due now.

    It is due after the last step of the run, and after each step that passes a multiple of `every`,
    which may be a fraction: for every = 2.5, after steps 3, 5, 8 and 10.

    Args:
      done: number of steps done.
      total: number of steps of the run.
      every: steps between two times; 0: never due.
    """
    return every > 0 and (done == total or done // every > (done - 1) // every)


def captions_in(batch: Batch) -> int:
    """Estimates the number of captions in a global batch from this process's rows of it."""
    # Segments of a row are 0 for the prefix, 1..K for its K captions and -1 for padding, so the
    # maximum is K.
    return int(np.sum(np.max(batch["segment"], axis=1))) * jax.process_count()


def parameter_groups(state: TrainState) -> list[ParameterGroup]:
    """Counts parameters by group: by the first parts of their names, trained groups first."""
    groups = []
    for parts_by_name, trainable in ((state.trained, True), (state.frozen, False)):
        shapes: dict[str, list[int]] = {}
        for name, parts in parts_by_name.items():
            group = "/".join(name.split("/")[: 3 if name.startswith("llm/layers") else 2])
            shapes.setdefault(group, []).append(math.prod(full_shape(parts)))
        groups += [
            ParameterGroup(group, len(counts), sum(counts), trainable)
            for group, counts in shapes.items()
        ]
    return groups


def trainable_summary(state: TrainState) -> str:
    """Returns a table, 80 columns wide, of the groups of parameters that train or are frozen."""
    groups = parameter_groups(state)
    width = max(len(each.name) for each in groups)
    lines = [
        f"{each.name:<{width}}  {each.parameters:>14,}  {'trains' if each.trainable else 'frozen'}"
        for each in groups
    ]
    total = sum(each.parameters for each in groups)
    trained = sum(each.parameters for each in groups if each.trainable)
    return "\n".join([*lines, f"{trained:,} of {total:,} parameters train"])


def _staged(start: TrainState, later: Sequence[Any], optimizer: Optimizer, step: int) -> TrainState:
    """Returns a state with the structure after `step` steps and the values of `start`."""
    for stage in later:
        # A stage with from_step == step is not applied: the checkpoint of a step is saved before
        # the loop reaches that stage.
        if stage.from_step < step:
            start = restage(start, optimizer, trainable_of(stage))
    return start


def _not_finite(skipped: int, losses: jax.Array, batches: Batches, step: int) -> str:
    """Returns the error message for a run whose gradients stay not finite.

    Args:
      skipped: number of steps in a row that were skipped.
      losses: float32[B], loss of each example of the global batch.
      batches: where the batch is from; names its images.
      step: index of the batch's step, from 0.
    """
    # Sorted by their first row, this process's shards match the order of `image_ids`.
    mine = sorted(losses.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    local = np.concatenate([np.asarray(shard.data) for shard in mine])
    ids = itertools.compress(batches.image_ids(step), ~np.isfinite(local))
    of_all = processes.gather("\n".join(ids).encode())
    found = (
        ", ".join(name for part in of_all for name in part.decode().splitlines())
        or "none; only the gradients overflow"
    )
    return (
        f"{skipped} steps in a row had a loss or gradients that are not finite, so training "
        f"stopped at step {step + 1}; a checkpoint is saved. Images of this batch whose "
        f"loss is not finite: {found}. Lower optimizer.learning_rate, or set "
        "model.dtype to bfloat16 or float32"
    )
