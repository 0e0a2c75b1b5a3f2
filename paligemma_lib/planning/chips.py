"""Lists published figures of TPU chips and of GPUs: FLOP/s, memory, links, prices.

    chip = CHIPS["v5e"]
    print(chip.flops, chip.hbm_bandwidth)          # per device, FLOP/s and bytes/s

The figures come from Google Cloud's pages (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x,
read in 2026) and, where these have none, from "How to Scale Your Model"
(jax-ml.github.io/scaling-book/tpus). The pages give the bandwidth of all links of a chip together,
in both directions. One link in one direction has that figure divided by twice the number of links.

Prices are Google's (cloud.google.com/tpu/pricing) for a chip-hour on demand in the United States,
as others quote them: v5e and v5p in "How to Scale Your Model" (of February 2025), v6e in us-east5
(of August 2026). They differ among regions and change; spot and reserved capacity costs less.
"""

import dataclasses

from paligemma_lib.runtime.sizes import GIB


@dataclasses.dataclass(frozen=True)
class Chip:
    """Figures of one chip, and the number of its JAX devices.

    Attributes:
      name: name of the chip in topologies.
      flops: peak bfloat16 FLOP/s.
      hbm_bandwidth: bytes/s of the main memory.
      usable: bytes of memory that a program may use on a device. XLA names this limit when it
        refuses a program; it is a little less than the published memory.
      axes: number of axes of the torus; a chip has two links along each.
      link_bandwidth: bytes/s of one link in one direction.
      ring: length of an axis at which its two ends are joined. With 3 axes, the ends are joined
        where the lengths of all three axes are multiples of it.
      dcn_bandwidth: bytes/s of a chip's share of the network between slices, in one direction.
      source: address of the page with the figures.
      devices: number of JAX devices on a chip. They share all of these figures but `usable`.
      usd_per_hour: price of a chip-hour in US dollars; None where it is not known.
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
    usd_per_hour: float | None = None


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            flops=275e12,
            hbm_bandwidth=1200e9,
            usable=int(30.75 * GIB),
            axes=3,
            link_bandwidth=45e9,  # from the book
            ring=4,
            dcn_bandwidth=25e9 / 4,  # from the book, for a host of 4 chips
            source="https://docs.cloud.google.com/tpu/docs/v4",
        ),
        Chip(
            name="v5e",
            flops=197e12,
            hbm_bandwidth=819e9,
            usable=int(15.75 * GIB),
            axes=2,
            link_bandwidth=400e9 / 8,  # 2 axes, 2 links along each, 2 directions
            ring=16,
            dcn_bandwidth=6.4e12 / 8 / 256,  # published in bits/s, for a pod of 256 chips
            source="https://docs.cloud.google.com/tpu/docs/v5e",
            usd_per_hour=1.20,
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
            usd_per_hour=4.20,
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
            usd_per_hour=2.70,
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
    """Figures of a GPU: peak dense 16-bit FLOP/s, bytes/s and bytes of its memory, and source."""

    flops: float
    bandwidth: float
    memory: float
    source: str


_NVIDIA = "https://www.nvidia.com/en-us/data-center"
GPUS = {  # by part of the driver's name; a name that contains another one comes before it
    "H200": Gpu(989e12, 4800e9, 141e9, f"{_NVIDIA}/h200/"),
    "H100": Gpu(989e12, 3350e9, 80e9, f"{_NVIDIA}/h100/"),  # SXM
    "A100": Gpu(312e12, 2039e9, 80e9, f"{_NVIDIA}/a100/"),
    "L4": Gpu(121e12, 300e9, 24e9, f"{_NVIDIA}/l4/"),
    "T4": Gpu(65e12, 320e9, 16e9, f"{_NVIDIA}/tesla-t4/"),  # in float16: the T4 has no bfloat16
}
