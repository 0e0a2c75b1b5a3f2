"""Fine-tunes PaliGemma to caption pictures, on one machine or on many.

    python examples/finetune.py                                   # a small model, drawn pictures
    python examples/finetune.py --config=examples/configs/flickr8k.py --config.batch_size=16
    python -m paligemma_lib.runtime.launch --count 2 examples/finetune.py --cpu

Checkpoints, metrics, TensorBoard's events, the exported model and the report lie in the config's
workdir. The same command goes on where it was stopped (by SIGTERM, with exit code 143) or killed,
also in another number of processes. On several machines, start it on each, with a workdir that all
of them see: where JAX knows the cluster (a TPU pod, SLURM, Open MPI) as it is, elsewhere with
--coordinator, --processes and --process.
"""

import functools
import itertools
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("GCS_READ_CACHE_DISABLED", "1")  # TensorFlow's would read 64 MiB at a time

import jax
import numpy as np
from absl import app, flags, logging
from flax.metrics.tensorboard import SummaryWriter
from ingredients import Ingredients, batch_options, gather
from ml_collections import ConfigDict, config_flags
from results import caption_test_pictures, finish, pixels_of, predictions_before

import paligemma_lib as pg
from paligemma_lib.batch import Batch
from paligemma_lib.data.batches import Batches
from paligemma_lib.doctor import Stage, may_differ_of, optimizer_of, plain
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.termination import EXIT_CODE, Termination, exit_on_sigterm
from paligemma_lib.train import Checkpoints, Optimizer, Progress, TrainState
from paligemma_lib.train.identity import CHECKPOINTS

CONFIG = config_flags.DEFINE_config_file(
    "config", str(Path(__file__).parent / "configs" / "demo.py"), "what to run"
)
CPU = flags.DEFINE_bool("cpu", False, "compute on the CPU alone")
JOINING: list[flags.FlagHolder[Any]] = [
    (flags.DEFINE_integer if kind is int else flags.DEFINE_string)(name, None, description)
    for name, (kind, description) in processes.OPTIONS.items()
]


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file
    exit_on_sigterm()
    if CPU.value:
        jax.config.update("jax_platforms", "cpu")
    try:
        with processes.joined(*(flag.value for flag in JOINING)):
            code = finetune(CONFIG.value)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    sys.exit(code)


def finetune(config: ConfigDict) -> int:
    """Runs the whole job, or what is left of it; returns the exit code."""
    workdir = path_of(config.workdir)
    mesh = pg.sharding.make_mesh(config.fsdp or None)
    run = gather(config, mesh)
    steps_per_epoch = len(run.data.train) / config.batch_size
    total_steps = max(1, round(config.epochs * steps_per_epoch))
    optimizer = optimizer_of(config, total_steps)

    with Checkpoints(workdir / CHECKPOINTS, keep=config.keep) as checkpoints:
        identity = {"config": plain(config), "params": pg.train.fingerprint(run.params)}
        checkpoints.check(identity, may_differ_of(config))
        before = None
        if config.evaluate_before:
            before = predictions_before(config, workdir, run)
        first, *later = run.stages
        start = pg.train.init_state(
            run.model, run.params, optimizer, trainable=first.trainable, mesh=mesh
        )
        run.params.clear()  # the state has them
        state = checkpoints.restore(functools.partial(staged, start, later, optimizer))
        del start
        first_step = int(state.step)

        speaks = jax.process_index() == 0
        if speaks:
            print(pg.model.overview.parameter_table(state.all_params(), what_trains(state)))

        train_step = pg.train.make_train_step(
            run.model,
            optimizer,
            mesh=mesh,
            microbatches=config.microbatches,
            label_smoothing=config.label_smoothing,
        )
        eval_step = pg.train.make_eval_step(run.model, mesh=mesh)
        batches = pg.data.train_batches(
            run.data.train,
            run.tokenizer,
            seed=config.seed,
            captions=config.captions,
            undecodable=config.data.damaged,
            min_crop_area=config.data.min_crop_area,
            mirror=config.data.mirror,
            start_step=first_step,
            **batch_options(config, run.model),
        )
        with (
            Termination(mesh) as termination,
            Progress(
                workdir,
                total_steps=total_steps,
                steps_per_epoch=steps_per_epoch,
                first_step=first_step,
                writer=SummaryWriter(str(workdir)) if speaks else None,
                silent=not speaks,
            ) as progress,
        ):
            look = functools.partial(validate, config, run, eval_step, progress, termination)
            validate_every = config.validate_every * steps_per_epoch
            steps = range(first_step, total_steps)
            if first_step and is_due(first_step, total_steps, validate_every):
                known = [each["step"] for each in progress.history if "validation_loss" in each]
                unknown = not processes.gather(b"known" if first_step in known else b"")[0]
                if unknown and look(state, first_step) is None:  # it was stopped before it could
                    steps = range(0)  # and is again: no step may come between
            for step in steps:
                for stage in later:
                    if stage.from_step == step:
                        state = pg.train.restage(state, optimizer, stage.trainable)
                with progress.waiting():
                    batch = next(batches)
                state, metrics = train_step(state, batch)
                progress.record(step, metrics, captions_in(batch))
                if progress.latest("skipped_in_a_row") >= config.max_skipped:
                    checkpoints.save(state, identity)
                    raise ValueError(not_finite(config, state, eval_step, batch, batches, step))

                done = step + 1
                validation_loss = None
                if not termination.agreed() and is_due(done, total_steps, validate_every):
                    validation_loss = look(state, done)
                stop = termination.agreed()
                if stop or is_due(done, total_steps, config.save_every * steps_per_epoch):
                    progress.flush()
                    checkpoints.save(state, identity, validation_loss)
                if stop:
                    break
            if termination.agreed():
                progress.say(int(state.step), "stopped; the same command goes on from here")
                return EXIT_CODE
    finish(config, workdir, run, state, progress.history, before)
    return 0


def staged(start: TrainState, later: list[Stage], optimizer: Optimizer, step: int) -> TrainState:
    """What trains after so many steps, with the values of the start."""
    for stage in later:
        if stage.from_step < step:
            start = pg.train.restage(start, optimizer, stage.trainable)
    return start


def validate(
    config: ConfigDict,
    run: Ingredients,
    eval_step: Any,
    progress: Progress,
    termination: Termination,
    state: TrainState,
    done: int,
) -> float | None:
    """The loss on the validation pictures, with two captions; None if asked to end meanwhile."""
    batches = pg.data.eval_batches(
        run.data.validation, run.tokenizer, **batch_options(config, run.model)
    )
    params = state.all_params()
    sums = np.zeros(2)
    with progress.paused():
        for batch in batches:
            if termination.agreed():
                return None
            losses, weights = eval_step(params, batch)
            sums += [float(jax.numpy.sum(losses)), float(jax.numpy.sum(weights))]
        shown = caption_test_pictures(config, run, params, count=2)
    loss = float(sums[0] / sums[1])
    progress.note(done, {"validation_loss": loss})
    for each in shown:
        picture = functools.partial(pixels_of, run, each.number)
        progress.show(done, each.image_id, picture, each.caption.text)
    return loss


def what_trains(state: TrainState) -> dict[str, Any]:
    """True and False in the place of parameters."""
    trained, frozen = (
        {name: (value,) * len(pieces) for name, pieces in tree.items()}
        for tree, value in ((state.trained, True), (state.frozen, False))
    )
    return pg.trainable.merge(trained, frozen)


def captions_in(batch: Batch) -> int:
    """How many captions a global batch has, going by this process's part of it."""
    return int(np.sum(np.max(batch["segment"], axis=1))) * jax.process_count()


def is_due(done: int, total: int, every: float) -> bool:
    """Whether a multiple of `every` lies in the last step, or it was the last of all."""
    return done == total or done // every > (done - 1) // every


def not_finite(
    config: ConfigDict,
    state: TrainState,
    eval_step: Any,
    batch: Batch,
    batches: Batches,
    step: int,
) -> str:
    """What to say when training cannot go on."""
    losses, _ = eval_step(state.all_params(), batch)
    mine = sorted(losses.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    local = np.concatenate([np.asarray(shard.data) for shard in mine])
    ids = itertools.compress(batches.image_ids(step), ~np.isfinite(local))
    of_all = processes.gather("\n".join(ids).encode())
    found = (
        ", ".join(name for part in of_all for name in part.decode().splitlines())
        or "none by itself: the gradients overflow"
    )
    return (
        f"{config.max_skipped} steps in a row had a loss or gradients that are not finite, so "
        f"training stopped at step {step + 1}; what it had learned is saved. Pictures of this "
        f"batch whose loss is not finite: {found}. Lower optimizer.learning_rate, or take "
        "model.dtype=bfloat16 or float32"
    )


if __name__ == "__main__":
    app.run(main)
