"""Decides when a run validates, saves, and ends early.

schedule = Schedule.of(config, images=6000)
schedule.validates(done=94), schedule.saves(done=94)      # after so many steps
schedule.ends_early({94: 2.3, 188: 2.4, 282: 2.5})        # validation loss by step
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Self

from paligemma_lib.run.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What is due after how many steps.

    Attributes:
      total_steps: number of steps of the whole run.
      steps_per_epoch: number of steps of an epoch, which may be a fraction.
      validate_every: steps between validations, which may be a fraction; 0: never.
      save_every: steps between checkpoints, likewise; 0: only after the last step.
      early_stopping: validations in a row without a lower loss after which the run ends; 0: never.
    """

    total_steps: int
    steps_per_epoch: float
    validate_every: float
    save_every: float
    early_stopping: int

    @classmethod
    def of(cls, config: RunConfig, images: float) -> Self:
        """Returns the schedule of a run with so many images in an epoch."""
        steps_per_epoch = images / config.batch_size
        return cls(
            max(1, round(config.epochs * steps_per_epoch)),
            steps_per_epoch,
            config.validate_every * steps_per_epoch,
            config.save_every * steps_per_epoch,
            config.early_stopping,
        )

    def validates(self, done: int) -> bool:
        """Whether a validation is due after `done` steps."""
        return _is_due(done, self.total_steps, self.validate_every)

    def saves(self, done: int) -> bool:
        """Whether a checkpoint is due after `done` steps."""
        return done == self.total_steps or _is_due(done, self.total_steps, self.save_every)

    def ends_early(self, losses: Mapping[int, float]) -> bool:
        """Whether the newest validations in a row had no lower loss than one before them.

        Args:
          losses: validation loss by the number of steps done; NaN is never the lowest.
        """
        best = by_loss(losses)[:1]
        since = sum(not best or step > best[0] for step in losses)
        return 0 < self.early_stopping <= since


def by_loss(losses: Mapping[int, float]) -> list[int]:
    """Returns the steps with a finite loss, the lowest first; of equal ones, the earlier first."""
    finite = [step for step, loss in losses.items() if math.isfinite(loss)]
    return sorted(finite, key=lambda step: (losses[step], step))


def _is_due(done: int, total: int, every: float) -> bool:
    # After the last step, and after each step that passes a multiple of `every`, which may be a
    # fraction: for every = 2.5, after steps 3, 5, 8 and 10.
    return every > 0 and (done == total or done // every > (done - 1) // every)
