"""The program that XLA made, as text, taken apart: instructions, sizes, how often each runs.

    program = parse(compiled.as_text())
    times = program.times(unknown=3)              # {"main": 1, "body.7": 18, ...}

Only what planning asks for is read: names, types, operands, and which computation calls which.

JAX tells the rest: `memory_analysis()` the bytes, the jaxpr the products (see `flops`). Text is
read for what nothing of JAX 0.10 tells: which messages the partitioner put in, and what moves to
memory. `cost_analysis()` takes every loop for one turn, so 18 scanned layers count as one;
`jax.experimental.roofline` does too, and sees no message but those of shard_map; `HloModule` has
shapes and attributes as text alone.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*)$")
_OPERAND = re.compile(r"%([\w.-]+)")
_CALLED = re.compile(
    r"\b(calls|to_apply|condition|body|branch_computations|called_computations|"
    r"true_computation|false_computation)=(\{[^}]*\}|%?[\w.-]+)"
)
_TRIPS = re.compile(r'known_trip_count":?\{"?n"?:"?(\d+)')


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a program: bytes, and whether they lie in the device's main memory."""

    bytes: int
    in_hbm: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `%name = arrays opcode(operands), attributes`."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    arguments: str  # what stands between the parentheses: of a constant, its value
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """Of all its results."""
        return sum(array.bytes for array in self.arrays)

    @functools.cached_property
    def called(self) -> dict[str, tuple[str, ...]]:
        """Names of computations, by the part that they play."""
        return {
            role: tuple(re.findall(r"[\w.-]+", names))
            for role, names in _CALLED.findall(self.attributes)
        }


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, each a list of instructions."""

    computations: dict[str, list[Instruction]]
    entry: str

    @functools.cached_property
    def instructions(self) -> dict[str, Instruction]:
        """All by name, which is unique."""
        return {each.name: each for lines in self.computations.values() for each in lines}

    def times(self, unknown: float = 1) -> dict[str, float]:
        """How often each computation runs.

        Args:
          unknown: turns of a loop that does not say how many it has.
        """
        found: dict[str, float] = dict.fromkeys(self.computations, 0)

        def visit(name: str, count: float) -> None:
            found[name] += count
            for each in self.computations[name]:
                known = self.trips(each) if each.opcode == "while" else 1
                trips = unknown if known is None else known
                for names in each.called.values():
                    for called in names:
                        visit(called, count * trips)

        visit(self.entry, 1)
        return found

    def trips(self, loop: Instruction) -> int | None:
        """Turns of a `while` that counts up to a constant; None: it counts up to something else."""
        if known := _TRIPS.search(loop.attributes):
            return int(known[1])
        (condition,) = loop.called["condition"]
        limits = [
            int(each.arguments)
            for each in self._reachable(condition)
            if each.opcode == "constant" and re.fullmatch(r"\d+", each.arguments)
        ]
        compares = [each for each in self._reachable(condition) if each.opcode == "compare"]
        if len(limits) != 1 or len(compares) != 1 or "direction=LT" not in compares[0].attributes:
            return None
        return limits[0]

    def _reachable(self, name: str) -> Iterator[Instruction]:
        for each in self.computations[name]:
            yield each
            for names in each.called.values():
                for called in names:
                    yield from self._reachable(called)


def parse(text: str) -> Program:
    """Reads `compiled.as_text()`. Raises ValueError where it is no such text."""
    computations: dict[str, list[Instruction]] = {}
    entry, lines = "", None
    for line in text.splitlines():
        if line.endswith("{") and (header := _COMPUTATION.match(line)):
            lines = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            lines = None
        elif lines is not None and (found := _INSTRUCTION.match(line)):
            lines.append(_instruction(found[2], found[3], bool(found[1])))
    if not entry:
        raise ValueError(f"hlo.parse: no entry computation in {text[:80]!r}")
    return Program(computations, entry)


def _instruction(name: str, rest: str, is_root: bool) -> Instruction:
    cut = _closing(rest) if rest.startswith("(") else rest.index(" ") - 1
    arrays, rest = rest[: cut + 1], rest[cut + 2 :]
    opcode, rest = rest.split("(", 1)
    cut = _closing("(" + rest) - 1
    arguments = rest[:cut]
    operands = tuple(_OPERAND.findall(arguments))
    return Instruction(name, _arrays(arrays), opcode, operands, arguments, rest[cut + 1 :], is_root)


def _closing(text: str) -> int:
    """Index of the parenthesis that closes the one that `text` begins with."""
    depth = 0
    for place in re.finditer(r"[()]", text):
        depth += 1 if place[0] == "(" else -1
        if depth == 0:
            return place.start()
    raise ValueError(f"hlo.parse: parentheses do not match in {text[:80]!r}")


def _arrays(text: str) -> tuple[Array, ...]:
    """S(1) and the like in a layout name memory on the chip itself; S(5) is the host's."""
    found = []
    for dtype, shape, layout in _ARRAY.findall(text):
        size = math.prod(int(side) for side in shape.split(",") if side)
        found.append(Array(math.ceil(size * _bits(dtype) / 8), "S(" not in layout))
    return tuple(found)


def _bits(dtype: str) -> int:
    if dtype == "token":
        return 0
    digits = re.search(r"\d+", dtype)  # s32, bf16, f8e4m3fn
    return int(digits[0]) if digits else 8  # pred
