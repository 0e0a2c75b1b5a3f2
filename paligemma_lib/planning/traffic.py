"""How many bytes a program moves to and from the device's main memory.

    moved = hbm_bytes(parse(compiled.as_text()), unknown=3)

Every instruction of the final program reads its operands and writes its results, except what lies
in memory on the chip itself. Of an array that a fused computation only takes a slice of, or only
writes a slice into, the slice counts.
"""

from paligemma_lib.planning.hlo import Array, Instruction, Program

# They move nothing: they name, or wait for what another instruction began.
_NAMING = {
    "after-all",
    "bitcast",
    "call",
    "conditional",
    "constant",
    "get-tuple-element",
    "iota",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
    "while",
}
_COLLECTIVES = ("all-", "reduce-scatter", "collective-", "ragged-")
_SLICES = {"dynamic-slice", "gather", "slice"}
_ELEMENT_FOR_ELEMENT = {"bitcast", "convert", "copy", "transpose"}  # what is not used, is not read


def hbm_bytes(program: Program, unknown: float = 1) -> float:
    """Returns the bytes read and written in one run.

    Args:
      program: as `hlo.parse` returns it.
      unknown: turns of loops that do not say how many they have.
    """
    times = program.times(unknown)
    total = 0.0
    counted: set[tuple[str, str]] = set()
    for name in _scheduled(program):
        for each in program.computations[name]:
            total += times[name] * _moved(program, each)
            # Inside fusions that run beside others; each is sent once.
            for inner in _fused(program, each):
                if inner.opcode.startswith(_COLLECTIVES):
                    channel = inner.attributes.partition("channel_id=")[2].partition(",")[0]
                    if (inner.opcode, channel) not in counted:
                        counted.add((inner.opcode, channel))
                        total += times[name] * _operands_and_results(program, inner)
    return total


def _scheduled(program: Program) -> list[str]:
    """The entry, and what it reaches by loops, branches and calls: not what is fused."""
    found, waiting = [], [program.entry]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.append(name)
        for each in program.computations[name]:
            if each.opcode in ("while", "conditional", "call"):
                waiting += [called for names in each.called.values() for called in names]
    return found


def _fused(program: Program, each: Instruction) -> list[Instruction]:
    if each.opcode != "fusion":
        return []
    return [i for name in each.called.get("calls", ()) for i in program.computations[name]]


def _moved(program: Program, each: Instruction) -> float:
    if each.opcode in _NAMING or each.opcode.endswith(("-done", "-update")):
        return 0
    if each.opcode in _SLICES:
        return 2 * _hbm(each.arrays)
    if each.opcode == "dynamic-update-slice":
        return 2 * _hbm(program.instructions[each.operands[1]].arrays)
    if each.opcode == "copy-start":  # its results name its operand too
        return _hbm(each.arrays)
    if each.opcode == "slice-start":  # so do these, but only a slice of it is read
        taken, given = program.instructions[each.operands[0]].arrays, each.arrays[1]
        return given.bytes * (taken[0].in_hbm + given.in_hbm)
    if each.opcode == "fusion":
        return _fusion(program, each)
    return _operands_and_results(program, each)


def _operands_and_results(program: Program, each: Instruction) -> float:
    taken = sum(_hbm(program.instructions[name].arrays) for name in each.operands)
    return taken + _hbm(each.arrays)


def _fusion(program: Program, each: Instruction) -> float:
    lines = _fused(program, each)
    total = 0.0
    for parameter, name in zip(_parameters(lines), each.operands, strict=True):
        outside = program.instructions[name].arrays
        if outside and outside[0].in_hbm:
            total += _share_read(program, lines, parameter) * parameter.bytes
    root = next(line for line in lines if line.is_root)
    results = root.operands if root.opcode == "tuple" else (root.name,)
    for result, array in zip(results, each.arrays, strict=False):
        if array.in_hbm:
            total += _written(program, program.instructions[result], array)
    return total


def _share_read(
    program: Program, lines: list[Instruction], value: Instruction, of_root: float = 1.0
) -> float:
    """Share of a value in a fused computation that is read, 0 to 1; `of_root`: of its result."""
    handed_on = value.opcode in ("parameter", "bitcast")  # where only a tuple or a call names it
    share = of_root if value.is_root else 0.0
    for user in lines:
        if value.name not in user.operands:
            continue
        first = user.operands[0] == value.name
        if user.opcode in _SLICES and first:
            share += user.bytes / max(value.bytes, 1)
        elif user.opcode in _ELEMENT_FOR_ELEMENT:
            share += _share_read(program, lines, user, of_root)
        elif user.opcode == "fusion":  # one within another
            inner, of_inner = _fused(program, user), _share_read(program, lines, user, of_root)
            for parameter, name in zip(_parameters(inner), user.operands, strict=True):
                if name == value.name:
                    share += _share_read(program, inner, parameter, of_inner)
        elif user.opcode == "dynamic-update-slice" and first:
            continue  # in place
        elif handed_on and user.opcode in ("tuple", "custom-call"):
            continue
        elif user.opcode.startswith(_COLLECTIVES):
            continue  # counted by themselves
        else:
            return 1.0
    return min(share, 1.0)


def _written(program: Program, result: Instruction, array: Array) -> float:
    while result.opcode in ("bitcast", "fusion"):
        if result.opcode == "bitcast":
            result = program.instructions[result.operands[0]]
        else:
            result = next(line for line in _fused(program, result) if line.is_root)
    if result.opcode in ("parameter", "custom-call") or result.opcode.startswith(_COLLECTIVES):
        return 0
    if result.opcode == "dynamic-update-slice":
        return program.instructions[result.operands[1]].bytes
    return array.bytes


def _parameters(lines: list[Instruction]) -> list[Instruction]:
    found = (line for line in lines if line.opcode == "parameter")
    return sorted(found, key=lambda line: int(line.arguments))


def _hbm(arrays: tuple[Array, ...]) -> float:
    return sum(array.bytes for array in arrays if array.in_hbm)
