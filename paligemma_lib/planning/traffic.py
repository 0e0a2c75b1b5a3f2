"""Counts the bytes that a program moves to and from the device's main memory (HBM).

    moved = hbm_bytes(parse(compiled.as_text()), unknown=3)

Every instruction of the compiled program reads its operands and writes its results. Arrays in
memory on the chip itself do not count. Where a fused computation reads only a slice of an array, or
writes only a slice into it, the slice counts.
"""

from paligemma_lib.planning.hlo import Array, Instruction, Program

# Instructions that move no bytes: they name values, make constants or control the program.
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
_ELEMENT_FOR_ELEMENT = {"bitcast", "convert", "copy", "transpose"}  # an unused element is not read


def hbm_bytes(program: Program, unknown: float = 1) -> float:
    """Returns the bytes read and written in one run of the program.

    Args:
      program: the program, as `hlo.parse` returns it.
      unknown: iterations of loops whose number the program does not state.
    """
    times = program.times(unknown)
    total = 0.0
    counted: set[tuple[str, str]] = set()
    for name in _scheduled(program):
        for each in program.computations[name]:
            total += times[name] * _moved(program, each)
            # Collectives that overlap with compute stand inside fusions, in the one that starts
            # them and in the one that awaits them. Each channel counts once.
            for inner in _fused(program, each):
                if inner.opcode.startswith(_COLLECTIVES):
                    channel = inner.attributes.partition("channel_id=")[2].partition(",")[0]
                    if (inner.opcode, channel) not in counted:
                        counted.add((inner.opcode, channel))
                        total += times[name] * _operands_and_results(program, inner)
    return total


def _scheduled(program: Program) -> list[str]:
    """Returns the entry and all that it reaches by loops, branches and calls, without fusions."""
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
    if each.opcode in _SLICES:  # reads as much as it writes, not the whole operand
        return 2 * _hbm(each.arrays)
    if each.opcode == "dynamic-update-slice":  # in place: only the update is read and written
        return 2 * _hbm(program.instructions[each.operands[1]].arrays)
    if each.opcode == "copy-start":  # results: (copy, operand, context), so both are counted
        return _hbm(each.arrays)
    if each.opcode == "slice-start":  # results: ((operand), slice, context)
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
    # The root of a fusion with several results is a tuple of them.
    root = next(line for line in lines if line.is_root)
    results = root.operands if root.opcode == "tuple" else (root.name,)
    for result, array in zip(results, each.arrays, strict=False):
        if array.in_hbm:
            total += _written(program, program.instructions[result], array)
    return total


def _share_read(
    program: Program, lines: list[Instruction], value: Instruction, of_root: float = 1.0
) -> float:
    """Returns the share of a value that a fused computation reads, 0 to 1.

    Args:
      program: the program.
      lines: instructions of the fused computation.
      value: one of these instructions.
      of_root: share of the computation's result that is read.
    """
    # A parameter that only a tuple or a custom call names is passed on and not read.
    handed_on = value.opcode in ("parameter", "bitcast")
    share = of_root if value.is_root else 0.0
    for user in lines:
        if value.name not in user.operands:
            continue
        first = user.operands[0] == value.name
        if user.opcode in _SLICES and first:
            share += user.bytes / max(value.bytes, 1)
        elif user.opcode in _ELEMENT_FOR_ELEMENT:
            share += _share_read(program, lines, user, of_root)
        elif user.opcode == "fusion":  # a fusion within a fusion
            inner, of_inner = _fused(program, user), _share_read(program, lines, user, of_root)
            for parameter, name in zip(_parameters(inner), user.operands, strict=True):
                if name == value.name:
                    share += _share_read(program, inner, parameter, of_inner)
        elif user.opcode == "dynamic-update-slice" and first:
            continue  # updated in place
        elif handed_on and user.opcode in ("tuple", "custom-call"):
            continue
        elif user.opcode.startswith(_COLLECTIVES):
            continue  # `hbm_bytes` counts it
        else:
            return 1.0
    return min(share, 1.0)


def _written(program: Program, result: Instruction, array: Array) -> float:
    # Bitcasts and nested fusions lead back to the instruction that makes the result.
    while result.opcode in ("bitcast", "fusion"):
        if result.opcode == "bitcast":
            result = program.instructions[result.operands[0]]
        else:
            result = next(line for line in _fused(program, result) if line.is_root)
    if result.opcode in ("parameter", "custom-call") or result.opcode.startswith(_COLLECTIVES):
        return 0  # passed on unchanged, or counted as a collective
    if result.opcode == "dynamic-update-slice":
        return program.instructions[result.operands[1]].bytes
    return array.bytes


def _parameters(lines: list[Instruction]) -> list[Instruction]:
    # parameter(k) is operand k of the fusion; the text lists parameters in any order.
    found = (line for line in lines if line.opcode == "parameter")
    return sorted(found, key=lambda line: int(line.arguments))


def _hbm(arrays: tuple[Array, ...]) -> float:
    return sum(array.bytes for array in arrays if array.in_hbm)
