"""Prepares parameters, whole or in parts, to be cast and copied to the host block by block.

for parameter in prepare(params, dtype="bfloat16"):
    parameter.name, parameter.shape, parameter.dtype
    for rows in parameter.blocks(): ...
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from paligemma_lib.checkpoint.arrays import DTYPES, checked_dtype
from paligemma_lib.checkpoint.configuration import Shape
from paligemma_lib.checkpoint.finite import only_finite
from paligemma_lib.checkpoint.placement import to_host


@dataclasses.dataclass(frozen=True)
class ExportedParameter:
    """A parameter to be written.

    Attributes:
      name: name of the parameter, such as `img/head/bias`.
      parts: arrays that form the parameter when they are concatenated along axis 0.
      dtype: dtype in which the parameter is written.
    """

    name: str
    parts: tuple[Any, ...]
    dtype: np.dtype

    @property
    def shape(self) -> Shape:
        """Shape of the whole parameter, all parts together."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def num_bytes(self) -> int:
        """Number of bytes of the parameter when it is written."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def given(self) -> np.dtype:
        """Dtype of the parts; if they differ, the first that cannot be written, if any."""
        kinds = [np.dtype(part.dtype) for part in self.parts]
        return next((kind for kind in kinds if kind not in DTYPES.values()), kinds[0])

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the rows in order, cast to `dtype`.

        Raises:
          ValueError: as in `to_host`, or a value is NaN or infinite.
        """
        rows = (to_host(self.name, part, self.dtype) for part in self.parts)
        blocks = itertools.chain.from_iterable(rows)
        yield from only_finite("the parameters cannot be written", self.name, blocks)


def prepare(params: Mapping[str, Any], dtype: str | None) -> list[ExportedParameter]:
    """Returns the parameters of a nested dict, sorted by name.

    Args:
      params: nested dict of JAX arrays, NumPy arrays, or objects with `shape`, `dtype` and rows by
        a slice. A leaf may be a tuple of such parts.
      dtype: "float32", "bfloat16" or "float16"; None: the dtype of each parameter.

    Raises:
      ValueError: `dtype` is unknown, or is None for a parameter whose parts differ in dtype.
    """
    target = checked_dtype(dtype)
    found = []
    leaves = flax.traverse_util.flatten_dict(dict(params), sep="/")
    for name, leaf in sorted(leaves.items()):
        parts = leaf if isinstance(leaf, tuple) else (leaf,)
        kinds = {np.dtype(part.dtype) for part in parts}
        if target is None and len(kinds) > 1:
            raise ValueError(f"{name} has parts of different dtypes: pass the `dtype` to write")
        found.append(ExportedParameter(name, parts, target or kinds.pop()))
    return found
