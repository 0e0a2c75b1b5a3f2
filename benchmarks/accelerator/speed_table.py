"""Results as a table in Markdown, with what follows from several of them, and the goals.

print(table([{"part": "training", "what": "batch 8, ...: captions", "value": 510.0, ...}]))
"""

from collections.abc import Mapping, Sequence
from typing import Any

from paligemma_lib.planning.chips import GPUS, Gpu

_PACKED, _SINGLE = "batch {}, 5 an image", "batch {}, 1 an image"
_GOALS = {  # what -> at least
    "five captions an image packed, against transformers": 5.0,
    "one caption an image, against transformers": 1.2,
    "MFU of training, batch 32": 0.5,
    "greedy, batch 8, against generate": 1.5,
    "beams of 4, batch 8, against generate": 3.0,
    "greedy, batch 1: bandwidth of a token": 0.7,
}


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page: the machine, the goals, then everything that was measured."""
    values = {
        (each["part"], each["what"]): each["value"]
        for each in records
        if isinstance(each.get("value"), int | float)
    }
    machine = next((each["value"] for each in records if each.get("what") == "machine"), "")
    lines = [f"Measured on {machine or 'an unknown machine'}.", ""]
    found = derived(values, gpu_of(str(machine)))
    lines += ["| what | measured | goal |", "| --- | --- | --- |"]
    for what, goal in _GOALS.items():
        value = f"{found[what]:.2f}" if what in found else "not measured"
        lines.append(f"| {what} | {value} | at least {goal:g} |")
    for what, value in found.items():
        if what not in _GOALS:
            lines.append(f"| {what} | {value:.2f} | |")
    lines += ["", "| part | what | measured | |", "| --- | --- | --- | --- |"]
    for each in records:
        if "note" in each and "what" not in each:
            lines.append(f"| {each['part']} | | | {each['note']} |")
        elif each["what"] != "machine":
            value = each["value"]
            number = f"{value:.4g}" if isinstance(value, float) else "" if value is None else value
            measured = f"{number} {each['unit']}".strip()
            lines.append(f"| {each['part']} | {each['what']} | {measured} | {each['note']} |")
    return "\n".join([*lines, ""])


def gpu_of(machine: str) -> Gpu | None:
    """The published figures of the card that a machine names."""
    return next((gpu for name, gpu in GPUS.items() if name in machine), None)


def derived(values: Mapping[tuple[str, str], float], gpu: Gpu | None) -> dict[str, float]:
    """Ratios and shares of what was measured; what lacks a part of it is left out."""
    found: dict[str, float] = {}

    def ratio(what: str, above: tuple[str, str], below: tuple[str, str]) -> None:
        if above in values and values.get(below):
            found[what] = values[above] / values[below]

    peers = [values.get(("training-peer", f"best, batch {b}: captions"), 0.0) for b in (8, 32)]
    for name, what in (
        (_PACKED, "five captions an image packed, against transformers"),
        (_SINGLE, "one caption an image, against transformers"),
    ):
        ours = [values.get(("training", f"{name.format(b)}: captions"), 0.0) for b in (8, 32)]
        if max(ours) and max(peers):
            found[what] = max(ours) / max(peers)
    for batch in (8, 32):
        flops = values.get(("training", f"{_PACKED.format(batch)}: needed FLOPs"))
        if flops and gpu:
            found[f"MFU of training, batch {batch}"] = flops * 1e12 / gpu.flops
        ratio(f"training, batch {batch}: of the product rate",
              ("training", f"{_PACKED.format(batch)}: needed FLOPs"),
              ("training", "product rate"))  # fmt: skip
        ratio(f"training, batch {batch}: memory at peak against what XLA planned",
              ("training", f"{_PACKED.format(batch)}: memory at peak of the process"),
              ("training", f"{_PACKED.format(batch)}: memory planned by XLA"))  # fmt: skip
    for batch in (1, 8, 32):
        for how in ("greedy", "beams of 4"):
            what = f"{how}, batch {batch}: captions"
            ratio(f"{how}, batch {batch}, against generate",
                  ("decoding", what), ("decoding-peer", what))  # fmt: skip
        ratio(f"prompt, batch {batch}: of the product rate",
              ("decoding", f"prompt, batch {batch}: needed FLOPs"),
              ("decoding", "product rate"))  # fmt: skip
    bandwidth = values.get(("decoding", "greedy, batch 1: bandwidth of a token"))
    if bandwidth is not None:
        found["greedy, batch 1: bandwidth of a token"] = bandwidth
    return found
