"""Selects the checkpoints to preserve: the newest ones, and the one with the lowest loss.

policy = NewestAndBest(newest=2)
policy.losses[step] = validation_loss
ocp.CheckpointManagerOptions(preservation_policy=policy)
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from orbax.checkpoint.checkpoint_managers import PolicyCheckpointInfo, PreservationPolicy

from paligemma_lib.runtime.bounds import whole


@dataclasses.dataclass
class NewestAndBest(PreservationPolicy):
    """Preservation policy for Orbax.

    The caller fills in `losses`, since Orbax's own policy would forget those measured before a
    restart.

    Attributes:
      newest: number of newest checkpoints to preserve, at least 1.
      losses: validation loss by step; None or missing where it was not measured.
    """

    newest: int
    losses: dict[int, float | None] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        # 0 would preserve everything, as [-0:] is the whole list.
        self.newest = whole("keep", self.newest, 1)

    def should_preserve(
        self, checkpoints: Sequence[PolicyCheckpointInfo], *, context: Any
    ) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(sorted(steps)[-self.newest :])
        measured = [
            (loss, step)
            for step in steps
            if (loss := self.losses.get(step)) is not None and math.isfinite(loss)
        ]
        if measured:
            kept.add(min(measured)[1])
        return [step in kept for step in steps]
