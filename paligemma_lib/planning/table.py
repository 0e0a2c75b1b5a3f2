"""Formats plans as a Markdown table with one row for each.

print(plan_table([("v5e:2x4 fsdp", compiled, limits), ...]))
"""

from collections.abc import Sequence

from paligemma_lib.planning.collectives import KINDS, Collective
from paligemma_lib.planning.compiling import Compiled
from paligemma_lib.planning.roofline import Roofline
from paligemma_lib.runtime.sizes import GIB, gib

NOTE = (
    "Predictions: nothing was run. Figures are per device. Memory and messages come from XLA's "
    "compiler. Times are the least that published speeds allow, each of the three alone."
)
_HEADER = (
    "", "GiB of arguments", "GiB at peak", "of", "GB gathered", "GB reduced", "GB other", "TFLOP",
    "compute ms", "memory ms", "network ms", "bound by", "MFU at best", "compiled in",
)  # fmt: skip
_GB = 1e9

Plan = tuple[str, Compiled, Roofline | None]


def plan_table(plans: Sequence[Plan]) -> str:
    """Returns the table; the row of a plan that does not fit says so in place of its figures."""
    rows = [_HEADER, *(_row(*plan) for plan in plans)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|",
                      *lines[1:]])  # fmt: skip


def sent(compiled: Compiled, kinds: Sequence[str] = KINDS) -> float:
    """Returns the bytes of all messages of some kinds in a step; each counts as its whole array."""
    return sum(each.bytes * each.times for each in compiled.collectives if each.kind in kinds)


def messages(compiled: Compiled, most: int = 12) -> str:
    """Returns the largest messages, one a line, and a line that sums up the others."""
    ranked = sorted(compiled.collectives, key=lambda each: -each.bytes * each.times)
    lines = [
        f"{each.times:6g} x {each.bytes / 1e6:10,.2f} MB  {each.kind:<18} among "
        f"{_members(each):<8} {each.source[-80:]}".rstrip()
        for each in ranked[:most]
    ]
    if rest := ranked[most:]:
        size = sum(each.bytes * each.times for each in rest)
        lines.append(f"and {len(rest)} smaller ones, {size / 1e6:,.1f} MB together")
    return "\n".join(lines)


def _members(each: Collective) -> str:
    if each.slices == 1:
        return str(each.group)
    return f"{each.slices} slices" if each.slices == each.group else f"{each.group} in all slices"


def _row(name: str, compiled: Compiled, limits: Roofline | None) -> tuple[str, ...]:
    limit = f"{compiled.limit / GIB:.2f}" if compiled.limit else ""
    used = f"{compiled.seconds:.0f} s, {gib(compiled.compiler_bytes)}"
    if not compiled.seconds:
        used = "not compiled"
    if not compiled.fits:
        peak, arguments = (
            f"{each / GIB:.2f}" if each else "" for each in (compiled.peak, compiled.arguments)
        )
        return name, arguments, peak, limit, "does not fit", *[""] * 8, used
    gathered, reduced = ("all-gather",), ("all-reduce", "reduce-scatter")
    others = [kind for kind in KINDS if kind not in gathered + reduced]
    times = [""] * 5
    if limits:
        parts = (limits.compute, limits.memory, limits.network)
        times = [f"{1e3 * part:.1f}" for part in parts]
        times += [limits.bound, f"{100 * limits.mfu:.0f} %"]
    return (
        name,
        f"{compiled.arguments / GIB:.2f}",
        f"{compiled.peak / GIB:.2f}",
        limit,
        *(f"{sent(compiled, kinds) / _GB:.2f}" for kinds in (gathered, reduced, others)),
        f"{compiled.flops / 1e12:.2f}",
        *times,
        used,
    )
