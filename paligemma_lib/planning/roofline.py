"""Predicts the least time of a step from its FLOPs, its memory traffic and its messages.

    limits = predict(compiled, CHIPS["v5e"])
    print(limits.bound, limits.seconds, limits.mfu)

The prediction is optimistic: compute, memory and network each run at their published speed, and the
slowest of them hides the other two. Latency of messages, the filling of pipelines and waiting for
data are not included.
"""

import dataclasses

from paligemma_lib.planning.chips import Chip
from paligemma_lib.planning.compiling import Compiled


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that compute, memory and network need for a step, each by itself.

    Attributes:
      compute: seconds of the matrix products.
      memory: seconds of reading and writing the device's memory.
      network: seconds of receiving messages from other devices.
      mfu: model FLOPs utilization, 0 to 1: the share of the chip's peak FLOP/s that the model's own
        operations reach. Recomputed operations do not count (arXiv 2204.02311, appendix B).
    """

    compute: float
    memory: float
    network: float
    mfu: float

    @property
    def seconds(self) -> float:
        """Seconds of a step: those of the slowest of the three."""
        return max(self.compute, self.memory, self.network)

    @property
    def bound(self) -> str:
        """Name of the slowest: "compute", "memory" or "network"."""
        return max(("compute", "memory", "network"), key=lambda name: getattr(self, name))


def predict(compiled: Compiled, chip: Chip) -> Roofline:
    """Returns the roofline of a compiled job on a chip, from the chip's published figures."""
    share = 1 / chip.devices  # the figures are of a chip, of which a device has its part
    network = 0.0
    for each in compiled.collectives:
        inside, across = each.received
        if each.links:  # without links all devices of the group are on one chip
            network += each.times * inside / (each.links * chip.link_bandwidth * share)
        network += each.times * across / (chip.dcn_bandwidth * share)
    compute = compiled.flops / (chip.flops * share)
    memory = compiled.hbm_bytes / (chip.hbm_bandwidth * share)
    slowest = max(compute, memory, network)
    mfu = compiled.model_flops / (chip.flops * share) / slowest if slowest else 0.0
    return Roofline(compute, memory, network, mfu)
