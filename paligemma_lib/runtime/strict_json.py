"""Writes JSON that every program can read: NaN and infinity, which JSON does not have, as null.

file.write(dumps({"loss": math.nan}))          # {"loss": null}
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
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
