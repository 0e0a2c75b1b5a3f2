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


def hbm_bytes(program: Program, unknown: float = 1) -> float:
    """Returns the bytes read and written in one run.

    Args:
      program: as `hlo.parse` returns it.
      unknown: turns of loops that do not say how many they have.
    """
    times = program.times(unknown)
    total = 0.0
    counted: set[str] = set()
    for name in _scheduled(program):
        for each in program.computations[name]:
            total += times[name] * _moved(program, each)
            # Inside fusions that run beside others; each is sent once.
            for inner in _fused(program, each):
                if inner.opcode.startswith(_COLLECTIVES):
                    channel = inner.attributes.partition("channel_id=")[2].partition(",")[0]
                    if channel not in counted:
                        counted.add(channel)
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
    if each.opcode in ("dynamic-slice", "gather", "slice"):
        return 2 * _hbm(each.arrays)
    if each.opcode == "dynamic-update-slice":
        return 2 * _hbm(program.instructions[each.operands[1]].arrays)
    if each.opcode == "copy-start":  # its results name its operand too
        return _hbm(each.arrays)
    if each.opcode == "fusion":
        return _fusion(program, each)
    return _operands_and_results(program, each)


def _operands_and_results(program: Program, each: Instruction) -> float:
    taken = sum(_hbm(program.instructions[name].arrays) for name in each.operands)
    return taken + _hbm(each.arrays)


def _fusion(program: Program, each: Instruction) -> float:
    lines = _fused(program, each)
    names = {line.name: line for line in lines}
    users: dict[str, list[Instruction]] = {}
    for line in lines:
        for operand in line.operands:
            users.setdefault(operand, []).append(line)
    parameters = sorted(
        (line for line in lines if line.opcode == "parameter"), key=lambda p: int(p.arguments)
    )
    total = 0.0
    for parameter, name in zip(parameters, each.operands, strict=True):
        outside = program.instructions[name].arrays
        if outside and outside[0].in_hbm:
            total += _read(parameter, users)
    root = next(line for line in lines if line.is_root)
    results = [names[name] for name in root.operands] if root.opcode == "tuple" else [root]
    for result, array in zip(results, each.arrays, strict=False):
        if array.in_hbm:
            total += _written(program, result, array, names)
    return total


def _read(parameter: Instruction, users: dict[str, list[Instruction]]) -> float:
    total = 0.0
    whole = sum(array.bytes for array in parameter.arrays)
    for user in users.get(parameter.name, ()):
        if user.opcode in ("tuple", "custom-call") or user.opcode.startswith(_COLLECTIVES):
            continue  # handed on
        if user.opcode in _SLICES and user.operands[0] == parameter.name:
            total += sum(array.bytes for array in user.arrays)
        elif user.opcode == "bitcast":
            total += _read(user, users)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
            continue  # in place
        else:
            return whole
    return min(total, whole)


def _written(
    program: Program, result: Instruction, array: Array, names: dict[str, Instruction]
) -> float:
    while result.opcode == "bitcast" and result.operands[0] in names:
        result = names[result.operands[0]]
    if result.opcode in ("parameter", "custom-call") or result.opcode.startswith(_COLLECTIVES):
        return 0
    if result.opcode == "dynamic-update-slice":
        return sum(a.bytes for a in program.instructions[result.operands[1]].arrays)
    return array.bytes


def _hbm(arrays: tuple[Array, ...]) -> float:
    return sum(array.bytes for array in arrays if array.in_hbm)
