"""Which checkpoints of a run are kept: the newest ones, and the one with the lowest loss.

policy = NewestAndBest(newest=2)
policy.losses[step] = validation_loss
ocp.CheckpointManagerOptions(preservation_policy=policy)
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from orbax.checkpoint.checkpoint_managers import PolicyCheckpointInfo, PreservationPolicy


@dataclasses.dataclass
class NewestAndBest(PreservationPolicy):
    """A policy for Orbax, whose own would forget the losses of former starts.

    Attributes:
      newest: how many of the newest are kept.
      losses: on validation, by step, where it was measured.
    """

    newest: int
    losses: dict[int, float | None] = dataclasses.field(default_factory=dict)

    def should_preserve(
        self, checkpoints: Sequence[PolicyCheckpointInfo], *, context: Any
    ) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(sorted(steps)[-self.newest :])
        measured = [(loss, step) for step in steps if (loss := self.losses.get(step)) is not None]
        if measured:
            kept.add(min(measured)[1])
        return [step in kept for step in steps]
