"""Counts values that are no numbers: NaN and infinities, which no parameter may have.

count_not_finite(rows)                                    # 0, nearly always
raise NotFinite("a.npz", {"img/head/bias": (3, 2048)})    # 3 of its 2,048 values

A model with such values loads, runs, and writes empty captions. So each block of values is looked
at once, on its way in or out, at about ten times the speed at which it is read or written.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from paligemma_lib.checkpoint.matching import listed

_PIECE = 1 << 17  # values that are looked at together, so that they stay in a processor's cache


def count_not_finite(values: np.ndarray) -> int:
    """Returns how many values are NaN or infinite.

    Args:
      values: float32, float16 or bfloat16, of any shape.
    """
    flat = values.reshape(-1)
    # The bits of a float, read as a whole number, grow with its magnitude. As a signed number, only
    # positive infinity and NaN reach the bits of infinity; as an unsigned one, only negative ones
    # reach those of negative infinity. For float16 these are 0x7c00 and 0xfc00. The two maxima are
    # several times faster than `np.isfinite`, which is slow for 16 bits.
    size = flat.dtype.itemsize
    signed, unsigned = flat.view(f"i{size}"), flat.view(f"u{size}")
    highest, lowest = (
        int(np.array([value], flat.dtype).view(f"u{size}")[0]) for value in (np.inf, -np.inf)
    )
    count = 0
    for start in range(0, flat.size, _PIECE):
        piece = slice(start, start + _PIECE)
        if signed[piece].max() >= highest or unsigned[piece].max() >= lowest:
            count += int(np.count_nonzero(~np.isfinite(flat[piece])))
    return count


def only_finite(place: str, name: str, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the blocks of a parameter, but none that has a value that is not finite.

    Args:
      place: what is being done, for the message.
      name: name of the parameter.
      blocks: its values.

    Raises:
      NotFinite: a value is not finite. All blocks are read first, to count such values.
    """
    blocks = iter(blocks)
    total = 0
    for block in blocks:
        total += block.size
        if bad := count_not_finite(block):
            for later in blocks:
                bad, total = bad + count_not_finite(later), total + later.size
            raise NotFinite(place, {name: (bad, total)})
        yield block


class NotFinite(ValueError):
    """Raised for values that are NaN or infinite.

    Attributes:
      found: parameter name -> how many of its values are not finite, and how many it has.
    """

    def __init__(self, place: str, found: Mapping[str, tuple[int, int]]) -> None:
        """Makes the message; `place` is the checkpoint, or what is being done."""
        told = [f"{name} ({bad:,} of {total:,})" for name, (bad, total) in found.items()]
        super().__init__(
            f"{place}: values are NaN or infinite in {listed(told)}. A model with such values "
            "writes nothing but nonsense: the file is damaged, or its training diverged. Use "
            "another checkpoint, or an earlier one of that run"
        )
        self.found = found
