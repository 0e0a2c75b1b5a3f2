"""Compares the weights in a merged file, as read back, with what they should be.

found = compare_merged("nano", combination, "birds.npz")
found.equal == found.values                     # every bit is as computed and rounded once
found.rounding                                  # 2e-4, relative, root mean square
"""

import dataclasses
import math
import os

import numpy as np

from paligemma_lib.checkpoint.adapters.merging import Combination, merged_arrays
from paligemma_lib.checkpoint.placement import row_blocks
from paligemma_lib.checkpoint.stored import open_params


@dataclasses.dataclass(frozen=True)
class MergedWeights:
    """The weights of a merged file beside those computed in float32.

    Attributes:
      values: how many there are.
      equal: how many are the computed ones rounded to the file's dtype, bit for bit.
      rounding: error of the weights that are rounded, root mean square, relative to theirs.
      dtypes: dtypes in the file, the one of fewest bits first.
    """

    values: int
    equal: int
    rounding: float
    dtypes: tuple[str, ...]


def compare_merged(
    base: str | os.PathLike[str], combination: Combination, target: str | os.PathLike[str]
) -> MergedWeights:
    """Reads the merged file again, and compares all of its values.

    Args:
      base, combination: as for `merging.merge`.
      target: the file or folder that it wrote.

    Raises:
      ValueError: the file does not hold the parameters of the model.
    """
    values = equal = 0
    squares = errors = 0.0
    dtypes: set[np.dtype] = set()
    with (
        merged_arrays(base, combination) as expected,
        open_params(target, combination.config) as found,
    ):
        for name, array in found.items():
            dtypes.add(array.dtype)
            for rows in row_blocks(array.shape, array.dtype.itemsize):
                read, exact = array[rows], expected[name][rows]
                bits = f"u{read.dtype.itemsize}"
                rounded = exact.astype(read.dtype)
                equal += int(np.count_nonzero(read.view(bits) == rounded.view(bits)))
                if exact.dtype != read.dtype:
                    exact = exact.astype(np.float32)
                    squares += float(np.vdot(exact, exact))
                    exact -= read.astype(np.float32)
                    errors += float(np.vdot(exact, exact))
            values += math.prod(array.shape)
    ordered = sorted(map(str, dtypes), key=["bfloat16", "float16", "float32"].index)
    return MergedWeights(values, equal, math.sqrt(errors / (squares or 1)), tuple(ordered))
