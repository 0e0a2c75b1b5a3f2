"""What is published of TPU chips and of GPUs: computing, memory, links.

    chip = CHIPS["v5e"]
    print(chip.flops, chip.hbm_bandwidth)          # per device, FLOP/s and bytes/s

Figures are those of Google Cloud's pages (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x,
read in 2026) and, where these say nothing, of "How to Scale Your Model"
(jax-ml.github.io/scaling-book/tpus). The pages give the bandwidth of all links of a chip together,
in both directions: a link in one direction has that divided by twice the number of links.
"""

import dataclasses

from paligemma_lib.runtime.sizes import GIB


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of one chip, and what JAX calls a device.

    Attributes:
      name: of the chip, as topologies have it.
      flops: bfloat16 FLOP/s at best.
      hbm_bandwidth: bytes/s.
      usable: bytes of memory of a device that a program may take, as XLA names them when it
        refuses one: a little less than what is published.
      axes: of the torus, each with two links of a chip.
      link_bandwidth: bytes/s of one link in one direction.
      ring: length of an axis at which its ends are joined. On 3 axes it takes multiples of it on
        all three.
      dcn_bandwidth: bytes/s of a chip's share of the network between slices, in one direction.
      devices: JAX devices on a chip, which share all of this but `usable`.
      source: where it is published.
    """

    name: str
    flops: float
    hbm_bandwidth: float
    usable: int
    axes: int
    link_bandwidth: float
    ring: int
    dcn_bandwidth: float
    source: str
    devices: int = 1


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            flops=275e12,
            hbm_bandwidth=1200e9,
            usable=int(30.75 * GIB),
            axes=3,
            link_bandwidth=45e9,  # the book's
            ring=4,
            dcn_bandwidth=25e9 / 4,  # the book's, for a host of 4 chips
            source="https://docs.cloud.google.com/tpu/docs/v4",
        ),
        Chip(
            name="v5e",
            flops=197e12,
            hbm_bandwidth=819e9,
            usable=int(15.75 * GIB),
            axes=2,
            link_bandwidth=400e9 / 8,
            ring=16,
            dcn_bandwidth=6.4e12 / 8 / 256,  # published for a pod of 256
            source="https://docs.cloud.google.com/tpu/docs/v5e",
        ),
        Chip(
            name="v5p",
            flops=459e12,
            hbm_bandwidth=2765e9,
            usable=int(95.73 * GIB),
            axes=3,
            link_bandwidth=1200e9 / 12,
            ring=4,
            dcn_bandwidth=50e9 / 8,
            source="https://docs.cloud.google.com/tpu/docs/v5p",
        ),
        Chip(
            name="v6e",
            flops=918e12,
            hbm_bandwidth=1638e9,
            usable=int(31.24 * GIB),
            axes=2,
            link_bandwidth=800e9 / 8,
            ring=16,
            dcn_bandwidth=100e9 / 8,
            source="https://docs.cloud.google.com/tpu/docs/v6e",
        ),
        Chip(
            name="tpu7x",
            flops=2307e12,
            hbm_bandwidth=7380e9,
            usable=int(94.74 * GIB),
            axes=3,
            link_bandwidth=1200e9 / 12,
            ring=4,
            dcn_bandwidth=100e9 / 8,
            source="https://docs.cloud.google.com/tpu/docs/tpu7x",
            devices=2,
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Gpu:
    """Figures of a card: dense FLOP/s in 16 bits at best, bytes/s and bytes of memory."""

    flops: float
    bandwidth: float
    memory: float
    source: str


_NVIDIA = "https://www.nvidia.com/en-us/data-center"
GPUS = {  # by how the driver names them; the longer name first where one begins as another
    "H200": Gpu(989e12, 4800e9, 141e9, f"{_NVIDIA}/h200/"),
    "H100": Gpu(989e12, 3350e9, 80e9, f"{_NVIDIA}/h100/"),  # SXM
    "A100": Gpu(312e12, 2039e9, 80e9, f"{_NVIDIA}/a100/"),
    "L4": Gpu(121e12, 300e9, 24e9, f"{_NVIDIA}/l4/"),
    "T4": Gpu(65e12, 320e9, 16e9, f"{_NVIDIA}/tesla-t4/"),  # float16: it has no bfloat16
}
