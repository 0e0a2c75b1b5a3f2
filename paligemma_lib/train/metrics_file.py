"""Reads `metrics.jsonl`: a line of JSON for each step, and for each validation.

records, problem = read_metrics(path_of("runs/mine") / FILE)
records[0]["loss"]
"""

import json
import math
from pathlib import Path
from typing import Any

from paligemma_lib.runtime.retries import retry

FILE = "metrics.jsonl"

_LARGEST = 2**63 - 1
# What a record of a step has; "seconds" tells it from a note, such as a validation loss.
_OF_STEPS = {"loss", "learning_rate", "captions_per_second", "waiting", "seconds"}


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Returns the records of a file, and what is wrong with the lines that are left out.

    A last line without an end does not count as wrong: a kill has cut it off, and its step is
    repeated. A line is wrong whose step is not above that of the lines before it which have the
    same names.

    Returns:
      Numbers by name, with "step" in each record and NaN for null; and "" if no line is wrong.
    """
    try:
        *lines, _ = retry(path.read_bytes, str(path)).split(b"\n")
    except Exception as error:  # each storage has exceptions of its own
        return [], f"it cannot be read ({error})"
    records: list[dict[str, Any]] = []
    wrong: list[str] = []
    last: dict[str, int] = {}  # the highest step that has a number of this name
    for number, line in enumerate(lines, 1):
        try:
            record = _record(line)
            names = record.keys() - {"step"}
            before = max((last.get(name, -1) for name in names), default=-1)
            if (step := record["step"]) <= before:
                raise ValueError(f"step {step} comes after step {before}")
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
        else:
            records.append(record)
            last |= dict.fromkeys(names, step)
    if not wrong:
        return records, ""
    return records, f"{len(wrong):,} of {len(lines):,} lines are damaged, {wrong[0]}"


def _record(line: bytes) -> dict[str, Any]:
    try:
        found = {
            str(name): math.nan if value is None else value
            for name, value in json.loads(line).items()
        }
    except Exception as error:
        raise ValueError(f"not an object in JSON ({error})") from error
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in found.values())
    # Whole numbers of JSON have no limit, but what draws and records them has.
    large = numbers and any(isinstance(v, int) and abs(v) > _LARGEST for v in found.values())
    if not numbers or large or type(found.get("step")) is not int or found["step"] < 0:
        raise ValueError("not a step and its numbers")
    if "seconds" in found and (lacking := _OF_STEPS - found.keys()):
        raise ValueError(f"it has seconds, but no {min(lacking)}")
    return found
