"""Lists the collectives of a compiled program: the messages that its devices exchange.

    for each in read_collectives(parse(compiled.as_text()), slices, positions):
        print(each.kind, each.bytes, each.times)

On TPUs a message that overlaps with compute appears in several places of the program, all with the
same channel. It is counted once, times the iterations of the loops around it. Messages of two kinds
may share a channel. Messages between slices are `send` instructions to their hosts; an attribute of
the instruction names the kind.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from paligemma_lib.planning.hlo import Instruction, Program
from paligemma_lib.planning.slices import Position, Slices

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_KIND = re.compile(rf"(ragged-)?({'|'.join(KINDS)})(-start)?")
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"mesh\[([^\]]*)\](?:, device_ids=\(([^)]*(?:\([^)]*\))?[^)]*)\))? \{([^}]*)\}")
_AXIS = re.compile(r"'([^']*)'(?::\((\d+)\)(\d+)|=(\d+))?")
# How many times a message receives the array, see `Collective.received`.
_SHARES = {"all-gather": 1, "all-reduce": 2, "reduce-scatter": 1, "all-to-all": 1}


@dataclasses.dataclass(frozen=True)
class Collective:
    """A message of a group of devices.

    Attributes:
      kind: one of KINDS.
      bytes: bytes of the whole array: the gathered one, the reduced one, the one before it is
        scattered, or the exchanged one.
      times: how often the message is sent in a step.
      group: number of devices that take part.
      slices: number of slices that these devices lie in.
      links: links over which a device receives from its own slice, see `Slices.links`.
      source: name of the JAX operation that the message comes from.
    """

    kind: str
    bytes: int
    times: float
    group: int
    slices: int
    links: int
    source: str

    @property
    def received(self) -> tuple[float, float]:
        """Bytes that a device receives per message, from its own slice and from other slices.

        The chips of a slice share the traffic between slices: each receives a part of the array,
        and the parts are gathered and scattered within the slice.
        """
        inside = self.group // self.slices
        if self.kind == "collective-permute":
            return (0.0, float(self.bytes)) if self.slices > 1 else (float(self.bytes), 0.0)
        # In a ring of n devices, each receives (n - 1) / n of the array: once for an all-gather or
        # a reduce-scatter, twice for an all-reduce, which is a reduce-scatter and an all-gather.
        # Between slices, each chip does the same with its 1 / inside of the array.
        share = _SHARES[self.kind] * self.bytes
        return share * (inside - 1) / inside, share / inside * (self.slices - 1) / self.slices


def read_collectives(
    program: Program, slices: Slices, positions: Sequence[Position], unknown: float = 1
) -> list[Collective]:
    """Returns the messages of a step, sorted by their bytes in all, the largest first.

    Args:
      program: the program, as `hlo.parse` returns it.
      slices: the slices that the program is compiled for.
      positions: position of each device, in the order of the mesh.
      unknown: iterations of loops whose number the program does not state.
    """
    times = program.times(unknown)
    callers = {
        name: line
        for lines in program.computations.values()
        for line in lines
        for name in line.called.get("calls", ())
    }
    # The same message may stand in several computations: where it starts, where it is awaited, and
    # in a fusion with the compute that overlaps it. All of these name its channel.
    found: dict[tuple[str, ...], Collective] = {}
    for name, lines in program.computations.items():
        for each in lines:
            if not times[name]:
                continue
            if each.opcode == "send" and (between := _BETWEEN_SLICES.search(each.attributes)):
                found[(each.name,)] = _from_host(program, each, between[1], times[name], slices)
            matched = _KIND.fullmatch(each.opcode)
            if not matched:
                continue
            scattered = name in callers and matched[2] == "all-reduce" and _scattered(each, lines)
            channel = re.search(r"channel_id=(\d+)", each.attributes)
            # A fused reduce-scatter stands in one place only, and several may share a channel.
            key = (matched[2], channel[1]) if channel and not scattered else (each.name,)
            if key in found and found[key].times >= times[name]:
                continue
            group = _group(each.attributes, len(positions))
            places = [positions[device] for device in group]
            found[key] = Collective(
                "reduce-scatter" if scattered else matched[2],
                _bytes(program, each),
                times[name],
                len(group),
                len({place[0] for place in places}),
                slices.links([place for place in places if place[:1] == places[0][:1]]),
                _source(each) or (_source(callers[name]) if name in callers else ""),
            )
    return sorted(found.values(), key=lambda each: -each.bytes * each.times)


def _scattered(reduced: Instruction, lines: Sequence[Instruction]) -> bool:
    """Whether each device uses only a slice of each of the sums of an all-reduce."""
    # XLA for TPUs writes a reduce-scatter as a fusion of an all-reduce and a dynamic-slice of its
    # result. An all-reduce of several arrays has a get-tuple-element for each in between.
    parts, waiting = False, [reduced.name]
    while waiting:
        name = waiting.pop()
        for user in lines:
            if name not in user.operands:
                continue
            if user.opcode == "get-tuple-element":
                waiting.append(user.name)
            elif user.opcode == "dynamic-slice":
                parts = True
            else:
                return False
    return parts


def _from_host(
    program: Program, each: Instruction, kind: str, times: float, slices: Slices
) -> Collective:
    """Returns the message among a chip and those at the same place in the other slices."""
    kind = kind.lower().replace("_", "-")
    kind = kind if kind in KINDS else "collective-permute"  # ONE_TO_ONE
    size = program.instructions[each.operands[0]].bytes * (
        slices.count if kind == "all-gather" else 1
    )
    return Collective(kind, size, times, slices.count, slices.count, 0, _source(each))


def _bytes(program: Program, each: Instruction) -> int:
    taken = sum(program.instructions[name].bytes for name in each.operands)
    given = each.bytes
    if each.opcode.startswith("all-reduce"):
        return given  # may be of a narrower dtype than the operands
    if each.opcode.endswith("-start"):  # its results include its operands
        given = max(given - taken, 0)
    return max(taken, given)


def _source(each: Instruction) -> str:
    name = re.search(r'op_name="([^"]*)"', each.attributes)
    return name[1] if name else ""


def _group(attributes: str, devices: int) -> list[int]:
    """Returns the first group of devices, from any of the forms in which XLA writes groups."""
    # {{0,2},{1,3}}, [4,2]<=[8], mesh['a'=2,'b'=4] {'b'}, and {} or nothing for all devices. The
    # groups of a message are alike, so the first stands for all.
    if pairs := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes):
        return [int(pairs[1]), int(pairs[2])]
    start = attributes.find("replica_groups=")
    if start < 0:
        return list(range(devices))
    text = attributes[start + len("replica_groups=") :]
    if mesh := _MESH.match(text):
        return _mesh_group(*mesh.groups())
    if iota := _IOTA.match(text):
        return _iota(*iota.groups())[0].ravel().tolist()
    listed = re.match(r"\{\{([\d,]*)\}", text)
    return [int(device) for device in listed[1].split(",")] if listed else list(range(devices))


def _mesh_group(axes: str, ids: str | None, grouped: str) -> list[int]:
    """Returns the first group of the form mesh['a'=2,'b'=4] {'b'}, here devices 0, 1, 2, 3.

    Args:
      axes: names and sizes of the axes of the mesh.
      ids: device ids in the order of the mesh; None: 0, 1, 2, ...
      grouped: axes along which the devices of a group differ, whole ('b') or in part ('b':(2)2).
    """
    sizes = {name: int(size) for name, _, _, size in _AXIS.findall(axes)}
    count = math.prod(sizes.values())
    if ids is None:
        devices = np.arange(count)
    elif iota := _IOTA.search(ids):
        devices = _iota(*iota.groups())
    else:
        devices = np.array([int(each) for each in re.findall(r"\d+", ids)])
    # An axis in part, 'b':(2)2 of 'b'=8, is the axis of size 2 that follows one of size 2: 'b' is
    # reshaped to [2, 2, 2], of which the middle varies: [0, :, 0] are the devices 0 and 2.
    parts = {name: [(0, size, True)] for name, size in sizes.items()}
    chosen = set()
    shape: list[int] = []
    for name, before, size, _ in _AXIS.findall(grouped):
        whole = sizes[name]
        if size:
            parts[name] = [(0, int(before), False), (0, int(size), True)]
            parts[name].append((0, whole // int(before) // int(size), False))
        chosen.add(name)
    picked: list[slice | int] = []
    for name in sizes:
        for _, size, varies in parts[name]:
            shape.append(size)
            picked.append(slice(None) if varies and name in chosen else 0)
    return devices.reshape(shape)[tuple(picked)].ravel().tolist()


def _iota(shape: str, dims: str, order: str | None) -> np.ndarray:
    """Returns the array that a form such as [2,4]<=[4,2]T(1,0) stands for.

    The numbers 0 to 7 are reshaped to [4, 2], transposed by (1, 0), and reshaped to [2, 4]:
    [[0, 2, 4, 6], [1, 3, 5, 7]].
    """
    sides = [int(side) for side in dims.split(",")]
    numbers = np.arange(math.prod(sides)).reshape(sides)
    if order:
        numbers = numbers.transpose([int(axis) for axis in order.split(",")])
    return numbers.reshape([int(side) for side in shape.split(",")])
