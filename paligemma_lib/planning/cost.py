"""Says what a million images take at least: hours and US dollars.

    cost = per_million(limits, 256, Slices.named("v5e:4x8"))
    print(cost.hours, cost.usd)

Like the roofline that it multiplies, it is a lower bound: nothing starts, compiles, waits or fails.
"""

import dataclasses

from paligemma_lib.planning.roofline import Roofline
from paligemma_lib.planning.slices import Slices


@dataclasses.dataclass(frozen=True)
class Cost:
    """Least time and price of a million images.

    Attributes:
      hours: hours on all chips together.
      chips: number of chips.
      usd_per_hour: price of a chip-hour in US dollars; None where it is not known.
    """

    hours: float
    chips: int
    usd_per_hour: float | None

    @property
    def usd(self) -> float | None:
        """Price in US dollars; None where that of a chip is not known."""
        return None if self.usd_per_hour is None else self.hours * self.chips * self.usd_per_hour

    def __str__(self) -> str:
        hours = f"{self.hours:.3g} hours"
        if self.usd is None:
            return f"{hours} on {self.chips} chips, whose price is not known"
        return (
            f"{hours}, {self.usd:.3g} USD ({self.chips} chips, {self.usd_per_hour:.2f} USD an hour)"
        )


def per_million(limits: Roofline, images: int, slices: Slices) -> Cost:
    """Returns the least time and price of a million images.

    Args:
      limits: the roofline of a training step, or of captioning a batch.
      images: number of images of the step or batch.
      slices: where it runs.

    Raises:
      ValueError: the slices are of CPUs.
    """
    chip = slices.chip
    if chip is None:
        raise ValueError(f"per_million: expected slices of TPUs, got {slices.name}")
    hours = 1e6 / images * limits.seconds / 3600
    return Cost(hours, slices.size // chip.devices, chip.usd_per_hour)
