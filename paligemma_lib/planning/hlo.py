"""Parses the text of a compiled XLA program into instructions, sizes and execution counts.

    program = parse(compiled.as_text())
    times = program.times(unknown=3)              # {"main": 1, "body.7": 18, ...}

Only what planning needs is parsed: names, types, operands, and which computation calls which.

JAX reports the rest itself: `memory_analysis()` has the bytes, the jaxpr has the products (see
`flops`). The text is parsed for two facts that no interface of JAX 0.10 reports: which collectives
the partitioner inserted, and how many bytes move to and from memory. `cost_analysis()` counts the
body of every loop once, so 18 scanned layers count as one. `jax.experimental.roofline` does so too,
and sees no collectives but those of shard_map. `HloModule` has shapes and attributes as text only.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

# The name, shape and layout of a type: bf16[18,8,64]{2,1,0:T(8,128)(2,1)S(1)}, f32[], token[].
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
    """An array of a program: its bytes, and whether it lies in the device's main memory (HBM)."""

    bytes: int
    in_hbm: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `%name = arrays opcode(operands), attributes`."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    arguments: str  # the text between the parentheses; the value of a constant
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """Number of bytes of all results."""
        return sum(array.bytes for array in self.arrays)

    @functools.cached_property
    def called(self) -> dict[str, tuple[str, ...]]:
        """Names of the called computations by role, such as "body" and "condition"."""
        return {
            role: tuple(re.findall(r"[\w.-]+", names))
            for role, names in _CALLED.findall(self.attributes)
        }


@dataclasses.dataclass(frozen=True)
class Program:
    """A parsed program.

    Attributes:
      computations: name -> instructions of the computation.
      entry: name of the computation that runs first.
    """

    computations: dict[str, list[Instruction]]
    entry: str

    @functools.cached_property
    def instructions(self) -> dict[str, Instruction]:
        """All instructions by name; names are unique in a program."""
        return {each.name: each for lines in self.computations.values() for each in lines}

    def times(self, unknown: float = 1) -> dict[str, float]:
        """Returns how often each computation runs, by name.

        Args:
          unknown: iterations of a loop whose number the program does not state.
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
        """Returns the iterations of a `while` that counts up to a constant, None for any other."""
        if known := _TRIPS.search(loop.attributes):
            return int(known[1])
        # A scan counts from 0 in steps of 1 while i < N: N is the only integer constant of its
        # condition, and the comparison the only one. It may lie in a fusion, hence `_reachable`.
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
    """Parses `compiled.as_text()`. Raises ValueError where the text has no entry computation."""
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
    # `rest` is "f32[4]{0} add(%a, %b), metadata={...}". The type of several results is a tuple,
    # "(f32[4]{0}, s32[])", and may hold spaces; that of one result holds none.
    cut = _closing(rest) if rest.startswith("(") else rest.index(" ") - 1
    arrays, rest = rest[: cut + 1], rest[cut + 2 :]
    opcode, rest = rest.split("(", 1)
    cut = _closing("(" + rest) - 1
    arguments = rest[:cut]
    operands = tuple(_OPERAND.findall(arguments))
    return Instruction(name, _arrays(arrays), opcode, operands, arguments, rest[cut + 1 :], is_root)


def _closing(text: str) -> int:
    """Returns the index of the parenthesis that closes the first character of `text`."""
    depth = 0
    for place in re.finditer(r"[()]", text):
        depth += 1 if place[0] == "(" else -1
        if depth == 0:
            return place.start()
    raise ValueError(f"hlo.parse: parentheses do not match in {text[:80]!r}")


def _arrays(text: str) -> tuple[Array, ...]:
    """Returns the arrays of a type."""
    found = []
    # A layout names the memory space where it is not HBM: S(1) and the like are on the chip itself,
    # S(5) is the host's memory.
    for dtype, shape, layout in _ARRAY.findall(text):
        size = math.prod(int(side) for side in shape.split(",") if side)
        found.append(Array(math.ceil(size * _bits(dtype) / 8), "S(" not in layout))
    return tuple(found)


def _bits(dtype: str) -> int:
    if dtype == "token":
        return 0
    digits = re.search(r"\d+", dtype)  # s32, bf16, f8e4m3fn: the first number is the width
    return int(digits[0]) if digits else 8  # pred takes a byte
