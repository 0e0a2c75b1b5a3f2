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


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Returns the records of a file, and what is wrong with the lines that are left out.

    A last line without an end does not count as wrong: a kill has cut it off, and its step is
    repeated.

    Returns:
      Numbers by name, with "step" in each record and NaN for null; and "" if no line is wrong.
    """
    try:
        *lines, _ = retry(path.read_bytes, str(path)).split(b"\n")
    except Exception as error:  # each storage has exceptions of its own
        return [], f"it cannot be read ({error})"
    records, wrong = [], []
    for number, line in enumerate(lines, 1):
        try:
            records.append(_record(line))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
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
    if not numbers or type(found.get("step")) is not int:
        raise ValueError("not a step and its numbers")
    return found
