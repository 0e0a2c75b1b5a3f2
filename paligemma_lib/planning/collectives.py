"""Which messages devices exchange, read off the program that XLA made.

    for each in read_collectives(parse(compiled.as_text()), slices, positions):
        print(each.kind, each.bytes, each.times)

On TPUs a message that runs beside computing appears in several places, all of one channel: it is
counted once, times the turns of the loops around it. Messages of two kinds may share a channel.
What slices exchange is sent by their hosts, and named by an attribute.
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
_SHARES = {"all-gather": 1, "all-reduce": 2, "reduce-scatter": 1, "all-to-all": 1}


@dataclasses.dataclass(frozen=True)
class Collective:
    """A message.

    Attributes:
      kind: one of KINDS.
      bytes: of the whole array: gathered, reduced, before it is scattered, exchanged.
      times: how often it is sent in a step.
      group: how many devices share it.
      slices: how many slices they lie in.
      links: by which a device of the group hears from others of its slice, see `Slices.links`.
      source: the name of the operation that asked for it.
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
        """Bytes that a device receives at each time: from its own slice, from other slices.

        What crosses slices is divided among the chips of each: they gather and scatter it within.
        """
        inside = self.group // self.slices
        if self.kind == "collective-permute":
            return (0.0, float(self.bytes)) if self.slices > 1 else (float(self.bytes), 0.0)
        # In a ring of n, each device hears (n - 1) / n of the array, once to gather or to scatter,
        # twice to reduce for all (reduce-scatter, then all-gather).
        share = _SHARES[self.kind] * self.bytes
        return share * (inside - 1) / inside, share / inside * (self.slices - 1) / self.slices


def read_collectives(
    program: Program, slices: Slices, positions: Sequence[Position], unknown: float = 1
) -> list[Collective]:
    """All that devices exchange in a step, the largest first.

    Args:
      program: as `hlo.parse` returns it.
      slices: what it is compiled for.
      positions: of its devices, in the order of its mesh.
      unknown: turns of loops that do not say how many they have.
    """
    times = program.times(unknown)
    callers = {
        name: line
        for lines in program.computations.values()
        for line in lines
        for name in line.called.get("calls", ())
    }
    # The same message may stand in several computations: where it is started, where it is waited
    # for, and in a fusion with what runs meanwhile. All of these name its channel.
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
            # What is scattered at once stands in one place, whatever its channel.
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
    """Whether each device takes no more than a part of a sum, or of each of several sums."""
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
    """Of a chip and those in its place in the other slices."""
    kind = kind.lower().replace("_", "-")
    kind = kind if kind in KINDS else "collective-permute"  # it is ONE_TO_ONE
    size = program.instructions[each.operands[0]].bytes * (
        slices.count if kind == "all-gather" else 1
    )
    return Collective(kind, size, times, slices.count, slices.count, 0, _source(each))


def _bytes(program: Program, each: Instruction) -> int:
    taken = sum(program.instructions[name].bytes for name in each.operands)
    given = each.bytes
    if each.opcode.startswith("all-reduce"):
        return given  # which may be narrower than what is taken
    if each.opcode.endswith("-start"):  # its result names its operands too
        given = max(given - taken, 0)
    return max(taken, given)


def _source(each: Instruction) -> str:
    name = re.search(r'op_name="([^"]*)"', each.attributes)
    return name[1] if name else ""


def _group(attributes: str, devices: int) -> list[int]:
    """The first of the groups of devices, in any of the forms in which XLA writes them."""
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
    """mesh['a'=2,'b'=4] {'b'}; an axis may be taken in part: 'b':(2)2, after a part of size 2."""
    sizes = {name: int(size) for name, _, _, size in _AXIS.findall(axes)}
    count = math.prod(sizes.values())
    if ids is None:
        devices = np.arange(count)
    elif iota := _IOTA.search(ids):
        devices = _iota(*iota.groups())
    else:
        devices = np.array([int(each) for each in re.findall(r"\d+", ids)])
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
    """[2,4]<=[4,2]T(1,0): the numbers from 0 on as [4, 2], transposed, as [2, 4]."""
    sides = [int(side) for side in dims.split(",")]
    numbers = np.arange(math.prod(sides)).reshape(sides)
    if order:
        numbers = numbers.transpose([int(axis) for axis in order.split(",")])
    return numbers.reshape([int(side) for side in shape.split(",")])
