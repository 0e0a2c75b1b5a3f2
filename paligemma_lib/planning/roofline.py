"""How fast a step could be at best: time to compute, to move memory, to hear from other devices.

    limits = predict(compiled, CHIPS["v5e"])
    print(limits.bound, limits.seconds, limits.mfu)

A prediction, and a bright one: each of the three runs at its published speed and hides behind the
slowest. What starts a message, fills a pipeline or waits for data is not in it.
"""

import dataclasses

from paligemma_lib.planning.chips import Chip
from paligemma_lib.planning.compiling import Compiled


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of a step that computing, memory and network take, if nothing else counted.

    Attributes:
      mfu: share of the chip's peak that the model's own operations would get, those that are done
        again to save memory not counted (arXiv 2204.02311, appendix B).
    """

    compute: float
    memory: float
    network: float
    mfu: float

    @property
    def seconds(self) -> float:
        """Of the slowest."""
        return max(self.compute, self.memory, self.network)

    @property
    def bound(self) -> str:
        """Which is the slowest."""
        return max(("compute", "memory", "network"), key=lambda name: getattr(self, name))


def predict(compiled: Compiled, chip: Chip) -> Roofline:
    """Predicts from what a device does and from published figures."""
    share = 1 / chip.devices
    network = 0.0
    for each in compiled.collectives:
        inside, across = each.received
        if each.links:  # else all are on one chip
            network += each.times * inside / (each.links * chip.link_bandwidth * share)
        network += each.times * across / (chip.dcn_bandwidth * share)
    compute = compiled.flops / (chip.flops * share)
    memory = compiled.hbm_bytes / (chip.hbm_bandwidth * share)
    slowest = max(compute, memory, network)
    mfu = compiled.model_flops / (chip.flops * share) / slowest if slowest else 0.0
    return Roofline(compute, memory, network, mfu)
