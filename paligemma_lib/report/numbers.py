"""Formats numbers for readers and chooses round numbers for axes.

short(5e-5), short(12345.678), ticks(0.2, 3.9)     # '5e-5', '12,346', [1.0, 2.0, 3.0]
"""

from __future__ import annotations

import math


def short(value: float) -> str:
    """Returns a number with about four significant digits; a dash if it is not finite."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, _, exponent = f"{value:.3g}".partition("e")
        return _minus(f"{mantissa}e{int(exponent)}" if exponent else mantissa)
    # log10 counts the digits before the point: 3.14159 has 1 and gets 3 decimals, 314.159 has 3 and
    # gets 1.
    decimals = 0 if value == int(value) else max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(decimals, 4)}f}"
    return _minus(text.rstrip("0").rstrip(".") if "." in text else text)


def fixed(value: float, decimals: int) -> str:
    """Returns a number with the given number of decimals; a dash if it is not finite."""
    return _minus(f"{value:,.{decimals}f}") if math.isfinite(value) else "\N{EN DASH}"


def percent(share: float) -> str:
    """Returns a share from 0 to 1 in percent, with one decimal below 10 %."""
    if 0 < share < 0.0005:
        return "<0.1%"
    # 9.95 % would round up to "10.0%", so whole percents begin there.
    return f"{share:.0%}" if share == 0 or share >= 0.0995 else f"{share:.1%}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Returns at most `most` round numbers from `low` to `high`, 1, 2 or 5 times 10**n apart."""
    span = high - low
    # span / power is in [most, 10 * most), so one of the factors up to 20 always fits. A span of
    # most - 1 steps holds at most `most` multiples of the step; 1e-9 absorbs rounding.
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(k * power for k in (1, 2, 5, 10, 20) if span / (k * power) <= most - 1 + 1e-9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}") if text.startswith("-") else text
