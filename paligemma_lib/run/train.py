"""Trains a prepared run (second of four parts): the loop of steps, validations and checkpoints.

outcome = train(prepared, trackers)
outcome.state, outcome.history       # history: what metrics.jsonl has
outcome.stopped                      # 143: SIGTERM came; all is saved; the same command continues
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib.batch import Batch
from paligemma_lib.data.sources.protocol import epoch_len
from paligemma_lib.run.assembly import optimizer_of, train_step_of, trainable_of
from paligemma_lib.run.batching import train_batches_of
from paligemma_lib.run.damage import count_damage, recall_damage
from paligemma_lib.run.not_finite import not_finite
from paligemma_lib.run.parameter_table import trainable_summary
from paligemma_lib.run.prepare import Prepared, load_params
from paligemma_lib.run.save_clock import SaveClock
from paligemma_lib.run.schedule import Schedule, by_loss
from paligemma_lib.run.self_critical import SelfCritical
from paligemma_lib.run.validate import Validation
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.termination import Termination
from paligemma_lib.train import (
    Checkpoints,
    Optimizer,
    Progress,
    TrainState,
    init_state,
    restage,
)
from paligemma_lib.train.compatibility import CHECKPOINTS
from paligemma_lib.train.tracking import Trackers


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of training.

    Attributes:
      state: the state to export: after the last step, or the one with the lowest validation loss.
      history: the records of `metrics.jsonl`.
      steps: number of steps done.
      stopped: exit code, 130 or 143, if a signal ended training, which can be resumed; else 0.
    """

    state: TrainState
    history: Sequence[Mapping[str, float]]
    steps: int
    stopped: int


def train(prepared: Prepared, trackers: Trackers) -> Outcome:
    """Trains to the last step, or until a process receives SIGTERM or Ctrl-C.

    Training resumes from the newest whole checkpoint in the workdir, if there is one. It takes the
    memory of `prepared.params`, which is empty afterwards. The trackers get all metrics, and the
    captions of validations.

    Raises:
      ValueError: `max_skipped` steps in a row had gradients that are not finite; the message names
        the images whose loss is not finite. Or more than `max_corrupt` of the data are damaged.
      OSError: checkpoints or metrics could not be written.
    """
    config, mesh = prepared.config, prepared.mesh
    schedule = Schedule.of(config, epoch_len(prepared.data["train"]))
    optimizer = optimizer_of(config, schedule.total_steps)
    later = config.stages[1:]

    with Checkpoints(prepared.workdir / CHECKPOINTS, keep=config.keep) as checkpoints:
        states = _states(prepared, optimizer, prepared.params)
        rewarded = _self_critical(prepared, states(0))
        state = checkpoints.restore(states)
        del states
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
                total_steps=schedule.total_steps,
                steps_per_epoch=schedule.steps_per_epoch,
                first_step=first_step,
                trackers=trackers,
                silent=not is_main,
            ) as progress,
        ):
            validation = Validation(prepared, progress, termination)
            losses = _known_losses(checkpoints, progress, first_step)
            if first_step not in losses and first_step and schedule.validates(first_step):
                # A signal may have prevented the validation that was due at this step. If another
                # one does now, `agreed` is true, and no step moves on to another state.
                losses |= validation.run(state, first_step)
            checkpoints.recall(losses)
            over = termination.agreed() or schedule.ends_early(losses)
            clock = SaveClock(config.save_minutes, mesh)
            for step in range(first_step, first_step if over else schedule.total_steps):
                for stage in later:
                    if stage.from_step == step:
                        state = restage(state, optimizer, trainable_of(stage))
                with progress.waiting():
                    batch = next(batches)
                told: Mapping[str, float] = {}
                if rewarded is not None:
                    batch, told = rewarded.batch(state, batch, batches, step)
                state, metrics = train_step(state, batch)
                progress.record(step, metrics | told, captions_in(batch))
                if progress.latest("skipped_in_a_row") >= config.max_skipped:
                    checkpoints.save(state, prepared.record)
                    wrong = validation.losses(state, batch)
                    raise ValueError(not_finite(prepared, state, batch, wrong, batches, step))

                done = step + 1
                if not termination.agreed() and schedule.validates(done):
                    losses |= validation.run(state, done)
                # All processes must stop after the same step, or the next collective operation
                # hangs. `agreed` returns the same answer in all of them.
                over = termination.agreed() or schedule.ends_early(losses)
                is_best = config.export_best and by_loss(losses)[:1] == [done]
                if clock.is_due() or over or is_best or schedule.saves(done):
                    progress.flush()
                    checkpoints.save(state, prepared.record, losses.get(done))
                    count_damage(prepared)
                    clock.restart()
                if over:
                    break
            steps = int(state.step)
            if termination.agreed():
                checkpoints.wait()  # another signal must not cut it off
                progress.say(steps, "stopped; run the same command again to continue")
            elif schedule.ends_early(losses):
                progress.say(
                    steps, f"ended early: {config.early_stopping} validations without a lower loss"
                )
            stopped = termination.exit_code
        if config.export_best and not stopped:
            best_first = by_loss({s: losses[s] for s in checkpoints.steps() if s in losses})
            if best_first and best_first[0] != steps:
                del state  # its memory is needed for the other one
                start = _states(prepared, optimizer, load_params(prepared.setup))
                state = checkpoints.restore(start, best_first)
        return Outcome(state, progress.history, steps, stopped)


def _self_critical(prepared: Prepared, start: TrainState) -> SelfCritical | None:
    """Returns what samples and rewards the captions of a run; None for one on people's captions."""
    options = prepared.config.reward
    if not options.name:
        return None
    # A step takes the memory of what trains, so the start is a copy.
    return SelfCritical(prepared, jax.tree.map(jnp.copy, start.trained) if options.kl else {})


def captions_in(batch: Batch) -> int:
    """Estimates the number of captions in a global batch from this process's rows of it."""
    # Segments of a row are 0 for the prefix, 1..K for its K captions and -1 for padding, so the
    # maximum is K.
    return int(np.sum(np.max(batch["segment"], axis=1))) * jax.process_count()


def _states(
    prepared: Prepared, optimizer: Optimizer, params: dict[str, Any]
) -> Callable[[int], TrainState]:
    """Returns a function of the number of steps done: a state with the structure that it has then.

    Its values are those before the first step, made of `params`, which is empty afterwards.
    """
    first, *later = prepared.config.stages
    start = init_state(
        prepared.model, params, optimizer, trainable=trainable_of(first), mesh=prepared.mesh
    )
    params.clear()  # the state holds them now; a second reference would keep memory

    def state_at(step: int) -> TrainState:
        # A checkpoint holds only what trained at its step. The stages up to that step are applied,
        # so that names, shapes and shardings match the checkpoint. A stage with from_step == step
        # is not: the checkpoint of a step is saved before the loop reaches that stage.
        state = start
        for stage in later:
            if stage.from_step < step:
                state = restage(state, optimizer, trainable_of(stage))
        return state

    return state_at


def _known_losses(checkpoints: Checkpoints, progress: Progress, step: int) -> dict[int, float]:
    """Returns the validation losses of earlier starts by step, in all processes alike.

    Checkpoints record those of their own steps. metrics.jsonl has all, unless it was lost.
    """
    # Only the main process has the history, so all processes take its answer.
    known = [(s, loss) for s, loss in checkpoints.losses.items() if s <= step]
    known += [
        (record["step"], record["validation_loss"])
        for record in progress.history
        if "validation_loss" in record
    ]
    return dict(json.loads(processes.gather(json.dumps(known).encode())[0]))
