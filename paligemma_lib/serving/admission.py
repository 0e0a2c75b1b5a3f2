"""Bounds what waits: images of all clients and of one, and bytes.

bounds = Bounds(max_waiting=256, max_per_client=128, max_bytes=1 << 30)
bounds.check(job, waiting, unfinished)      # or raises Busy
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from paligemma_lib.runtime.bounds import whole
from paligemma_lib.serving.answers import Busy
from paligemma_lib.serving.jobs import Job

_PACE = 16  # images a second, a cautious guess, for what a refused client is told


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Bounds of an engine.

    Attributes:
      max_waiting: images that wait, of all clients.
      max_per_client: images that wait, of one client.
      max_bytes: encoded images in memory, waiting or not.
    """

    max_waiting: int
    max_per_client: int
    max_bytes: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = whole(f"Bounds: {field.name}", getattr(self, field.name), 1)
            object.__setattr__(self, field.name, value)

    def check(self, job: Job, waiting: Sequence[Job], unfinished: Sequence[Job]) -> None:
        """Raises Busy if there is no space for a job beside those that are there."""
        soon = max(1.0, len(waiting) / _PACE)
        if len(waiting) >= self.max_waiting:
            raise Busy(f"{len(waiting)} images are waiting already", soon)
        own = sum(each.client == job.client for each in waiting)
        if own >= self.max_per_client:
            raise Busy(f"{own} images of yours are waiting already", max(1.0, own / _PACE))
        held = sum(len(each.image) for each in unfinished)
        if held + len(job.image) > self.max_bytes:
            raise Busy(f"the images that are waiting have {held / 2**20:,.0f} MiB already", soon)
