"""Writes JSON that every program can read: NaN and infinity, which JSON does not have, as null.

file.write(dumps({"loss": math.nan}))          # {"loss": null}
finite({"loss": math.nan})                       # {"loss": None}
"""

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, **options: Any) -> str:
    """Returns `json.dumps(value)` with null for floats that are not finite.

    Args:
      value: anything that JSON can hold.
      options: as for `json.dumps`.
    """
    return json.dumps(finite(value), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """Returns a value of JSON with None for floats that are not finite, and lists for tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value
