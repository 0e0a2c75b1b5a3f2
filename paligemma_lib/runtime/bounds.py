"""Checks numbers that a caller passes, and says which argument is out of which bounds.

size = whole("Beam: size", size, 1)                      # an int of at least 1
top_p = real("Sample: top_p", top_p, above=0, most=1)    # a float, 0 < top_p <= 1

Python counts True as 1, and NaN fails no comparison of the form `x < low`. Both are refused here,
so that a wrong argument is an error where it is given and not a strange result later.
"""

import math
import numbers

from paligemma_lib.runtime.visible_text import visible


def whole(what: str, value: object, least: int, most: int | None = None) -> int:
    """Returns a whole number as an int, also one of NumPy.

    Args:
      what: function and argument, for the message.
      value: the number.
      least, most: its bounds, which are allowed; None: no upper bound.

    Raises:
      ValueError: it is no whole number (a bool and 4.0 are none), or out of bounds.
    """
    fine = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not fine or int(value) < least or (most is not None and int(value) > most):  # type: ignore[call-overload]
        upto = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{what}={shown(value)}, expected a whole number {upto}")
    return int(value)  # type: ignore[call-overload]


def real(
    what: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """Returns a finite number as a float, also one of NumPy.

    Args:
      what: function and argument, for the message.
      value: the number.
      least, above: a lower bound that is allowed, or one that is not.
      most, below: an upper bound that is allowed, or one that is not.

    Raises:
      ValueError: it is no finite number (a bool is none), or out of bounds.
    """
    fine = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        number = float(value) if fine else math.nan  # type: ignore[arg-type]
    except OverflowError:  # a whole number beyond the range of floats
        number = math.inf
    if (
        not math.isfinite(number)
        or (least is not None and number < least)
        or (above is not None and number <= above)
        or (most is not None and number > most)
        or (below is not None and number >= below)
    ):
        signs = {"at least": least, "above": above, "at most": most, "below": below}
        limits = [f"{sign} {limit:g}" for sign, limit in signs.items() if limit is not None]
        told = " and ".join(limits)
        raise ValueError(f"{what}={shown(value)}, expected a finite number {told}".rstrip())
    return number


def shown(value: object) -> str:
    """Returns a value as a message shows it: short, whatever it is."""
    try:
        return visible(f"{value!r:.60}")
    except Exception:  # of its __repr__; Python refuses to print thousands of digits
        return f"<{type(value).__name__}>"
