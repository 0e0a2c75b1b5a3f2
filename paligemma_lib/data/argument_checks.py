"""Checks arguments of the public functions of data: whole numbers, shares, switches.

check_whole("batch_size", 32, 1, 64)      # 32, also for NumPy's numbers and for 32.0
check_share("min_crop_area", 0.5)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from paligemma_lib.runtime.bounds import real, shown, whole

MAX_SIDE = 1 << 14  # pixels of a side for a model: one such image takes 3 GB
MAX_TEXT_LEN = 1 << 20  # tokens
MAX_BATCH = 1 << 24
MAX_NUMBER = (1 << 63) - 1  # of an example: numbers are int64


def check_whole(name: str, value: Any, low: int, high: int) -> int:
    """Returns a whole number as an int, also one of NumPy, and 32.0 as 32.

    Raises ValueError, with its name, for anything else, a bool among it.
    """
    is_whole = isinstance(value, float | np.floating) and math.isfinite(value)
    return whole(name, int(value) if is_whole and value == int(value) else value, low, high)


def check_seed(name: str, value: Any) -> int:
    """Returns a seed as an int. Raises ValueError, with its name, if it is no int64."""
    return check_whole(name, value, -MAX_NUMBER - 1, MAX_NUMBER)


def check_share(name: str, value: Any, *, zero: bool = False) -> float:
    """Returns a share in (0, 1] as a float; `zero` allows 0. Raises ValueError with its name."""
    return real(name, value, least=0, most=1) if zero else real(name, value, above=0, most=1)


def check_switch(name: str, value: Any) -> bool:
    """Returns True or False as a bool. Raises ValueError, with its name, for anything else."""
    if not isinstance(value, bool) and type(value).__name__ != "bool":  # NumPy's
        raise ValueError(f"{name}={shown(value)}, expected True or False")
    return bool(value)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises ValueError, with the name, if a value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={shown(value)}, expected one of {tuple(choices)}")


def check_text(name: str, value: Any) -> str:
    """Returns a text. Raises ValueError, with its name, if it is none."""
    if not isinstance(value, str):
        raise ValueError(f"{name}={shown(value)}, expected text")
    return value
