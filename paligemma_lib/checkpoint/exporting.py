"""Parameters on their way out: whole or in parts, cast and copied to the host block by block.

for parameter in prepare(params, dtype="bfloat16"):
    parameter.name, parameter.shape, parameter.dtype
    for rows in parameter.blocks(): ...
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from paligemma_lib.checkpoint.arrays import DTYPES, checked_dtype
from paligemma_lib.checkpoint.configuration import Shape
from paligemma_lib.checkpoint.placement import to_host


@dataclasses.dataclass(frozen=True)
class ExportedParameter:
    """A parameter to be written.

    Attributes:
      name: such as `img/head/bias`.
      parts: what holds it, in order along axis 0.
      dtype: in which it is written.
    """

    name: str
    parts: tuple[Any, ...]
    dtype: np.dtype

    @property
    def shape(self) -> Shape:
        """Of the parts together."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def num_bytes(self) -> int:
        """Size when written."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def given(self) -> np.dtype:
        """Type in which it is given; of several, one that cannot be written if there is such."""
        kinds = [np.dtype(part.dtype) for part in self.parts]
        return next((kind for kind in kinds if kind not in DTYPES.values()), kinds[0])

    def blocks(self) -> Iterator[np.ndarray]:
        """Gives the rows in order, cast; see `to_host` for errors."""
        for part in self.parts:
            yield from to_host(self.name, part, self.dtype)


def prepare(params: Mapping[str, Any], dtype: str | None) -> list[ExportedParameter]:
    """Returns the parameters of a nested dict, by name; a leaf may be a tuple of parts.

    Args:
      params: arrays of JAX, NumPy's, or what has `shape`, `dtype` and gives rows by a slice.
      dtype: "float32", "bfloat16" or "float16"; None: each parameter's own.

    Raises:
      ValueError: unknown `dtype`, or parts of different types and no `dtype`.
    """
    target = checked_dtype(dtype)
    found = []
    leaves = flax.traverse_util.flatten_dict(dict(params), sep="/")
    for name, leaf in sorted(leaves.items()):
        parts = leaf if isinstance(leaf, tuple) else (leaf,)
        kinds = {np.dtype(part.dtype) for part in parts}
        if target is None and len(kinds) > 1:
            raise ValueError(f"{name} is in parts of different types: give the `dtype` to write")
        found.append(ExportedParameter(name, parts, target or kinds.pop()))
    return found
