"""Provides the loss, optimizers, training state, jitted steps, checkpoints and progress.

import paligemma_lib as pg

optimizer = pg.train.make_optimizer("adamw", learning_rate=5e-5, total_steps=1200)
state = pg.train.init_state(config, params, optimizer, trainable="attention", mesh=mesh)
step = pg.train.make_train_step(config, optimizer, mesh=mesh)
for batch in batches:
    state, metrics = step(state, batch)
"""

from paligemma_lib.train import (
    compatibility,
    digests,
    loss,
    memory,
    optimizer,
    progress,
    retention,
    saving,
    state,
    step,
)
from paligemma_lib.train.digests import fingerprint
from paligemma_lib.train.memory import bytes_needed, check_memory
from paligemma_lib.train.optimizer import Optimizer, make_optimizer
from paligemma_lib.train.progress import Progress
from paligemma_lib.train.saving import Checkpoints
from paligemma_lib.train.state import TrainState, init_state, restage
from paligemma_lib.train.step import make_eval_step, make_train_step
from paligemma_lib.train.tracking import Tracker

__all__ = [
    "Checkpoints",
    "Optimizer",
    "Progress",
    "Tracker",
    "TrainState",
    "bytes_needed",
    "check_memory",
    "compatibility",
    "digests",
    "fingerprint",
    "init_state",
    "loss",
    "make_eval_step",
    "make_optimizer",
    "make_train_step",
    "memory",
    "optimizer",
    "progress",
    "restage",
    "retention",
    "saving",
    "state",
    "step",
]
