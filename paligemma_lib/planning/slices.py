"""Describes the devices to plan for: TPU slices, which need not be attached, or CPU devices.

slices = Slices.named("v5e:2x4")                     # or "cpu:8"
slices = Slices.named("v5e:2x4", count=2)            # two, joined by the data center's network
devices = slices.devices()                           # of JAX, to compile for, not to run on
"""

import dataclasses
import importlib.util
import math
import re
from collections.abc import Sequence
from typing import Any

import jax

from paligemma_lib.planning.chips import CHIPS, Chip

Position = tuple[int, ...]  # index of the slice, then the chip's coordinates in it


@dataclasses.dataclass(frozen=True)
class Slices:
    """One or more equal slices of chips of one kind.

    Attributes:
      kind: a key of CHIPS, or "cpu".
      sides: number of chips along each axis of a slice.
      count: number of slices.
    """

    kind: str
    sides: tuple[int, ...]
    count: int = 1

    @classmethod
    def named(cls, name: str, count: int = 1) -> "Slices":
        """Reads a name such as v5e:4x8, v5p:2x2x2 or cpu:8.

        Raises:
          ValueError: the name is not one of a topology.
        """
        found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
        kind = found[1] if found else ""
        sides = tuple(map(int, found[2].split("x"))) if found else ()
        axes = 1 if kind == "cpu" else CHIPS[kind].axes if kind in CHIPS else 0
        if len(sides) != axes or not axes or 0 in sides or count < 1:
            raise ValueError(
                f"unknown topology {name!r} with {count} slices: give the kind of chip and the "
                "number along each axis, such as v5e:2x4, v6e:16x16, v5p:2x2x2, v4:4x4x4, "
                "tpu7x:2x2x1, or cpu:8 (not the number of cores, as in v5e-8)"
            )
        if kind == "cpu" and count > 1:
            raise ValueError(f"topology {name!r}: CPU devices have no slices")
        return cls(kind, sides, count)

    @property
    def name(self) -> str:
        """Name of the topology of one slice, such as "v5e:2x4"."""
        return f"{self.kind}:{'x'.join(map(str, self.sides))}"

    @property
    def chip(self) -> Chip | None:
        """Figures of the chip; None for a CPU."""
        return CHIPS.get(self.kind)

    @property
    def size(self) -> int:
        """Number of devices of all slices."""
        per_chip = self.chip.devices if self.chip else 1
        return math.prod(self.sides) * per_chip * self.count

    def devices(self) -> Sequence[jax.Device]:
        """Returns the devices to compile for. TPUs need libtpu, and JAX restricted to the CPU.

        Raises:
          ModuleNotFoundError: libtpu is not installed.
          ValueError: libtpu does not know the slice.
        """
        if self.kind == "cpu":
            return jax.devices("cpu")
        check_libtpu()
        from jax.experimental import topologies

        options: dict[str, Any] = {"num_slices": self.count} if self.count > 1 else {}
        if self.kind == "v4":
            options["chip_config_name"] = "megacore"  # both cores as one device
        try:
            found = topologies.get_topology_desc(platform="tpu", topology_name=self.name, **options)
        except Exception as error:  # libtpu raises errors of many types
            raise ValueError(f"libtpu does not know the slice {self.name}: {error}") from error
        return found.devices

    def links(self, chips: Sequence[Position]) -> int:
        """Returns the number of links over which a chip of a group receives from the others.

        The number is that of the chip with the fewest links: along an axis, a chip at the end has
        one link, while every chip of a ring has two.

        Args:
          chips: positions of the chips of the group.
        """
        chip = self.chip
        if chip is None:
            return 0
        # The group uses an axis if its chips differ there. [1:] drops the index of the slice.
        varying = [len(set(places)) > 1 for places in zip(*chips, strict=True)][1:]
        if chip.axes == 3:
            rings = [all(side % chip.ring == 0 for side in self.sides)] * 3
        else:
            rings = [side == chip.ring for side in self.sides]
        # Not strict: devices have three coordinates on chips of two axes too.
        pairs = zip(varying, rings, strict=False)
        return sum(2 if ring else 1 for varies, ring in pairs if varies)


def position(device: Any) -> Position:
    """Returns the position of the chip of a device; (0,) for a CPU device."""
    return (getattr(device, "slice_index", 0) or 0, *getattr(device, "coords", ()))


def check_libtpu() -> None:
    """Raises ModuleNotFoundError, with the command that installs libtpu, where it is missing."""
    if importlib.util.find_spec("libtpu") is None:
        raise ModuleNotFoundError(
            "compiling for TPUs needs libtpu, which is not installed: pip install -e '.[tpu]' "
            "installs the version that fits JAX (topologies such as cpu:8 do not need it)"
        )
