"""Formats sizes of memory and files for messages: `gib(12 << 30)` is "12.0 GiB"."""

GIB = 2**30


def gib(size: float, decimals: int = 1) -> str:
    """Returns a number of bytes as GiB, with the unit."""
    return f"{size / GIB:,.{decimals}f} GiB"
