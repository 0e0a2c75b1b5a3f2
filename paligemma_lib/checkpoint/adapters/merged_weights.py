"""Gives the weights of a model with the adapters added, some layers at a time.

    params = merged(params)                           # a nested dict without adapters
    params["llm"]["layers"]["mlp"]["linear"][3:4]     # NumPy: W + scale A B of that layer

Nothing is computed until rows are read, so no second copy of the weights is held.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import numpy as np

from paligemma_lib.checkpoint.adapters.adapter_products import Arrays
from paligemma_lib.checkpoint.adapters.combining import changed, in_layer
from paligemma_lib.checkpoint.placement import host_rows
from paligemma_lib.model.adapter_params import MARK
from paligemma_lib.model.projections import PROJECTIONS, Projection, adapter_name
from paligemma_lib.trainable import full_shape


class MergedWeight:
    """A weight with its adapters added, computed when its rows are read.

    Attributes:
      shape: shape of the weight.
      dtype: its dtype, or that of its first part. Rows are float32, for the caller to round.
    """

    def __init__(
        self, name: str, weight: Any, adapters: Sequence[tuple[Projection, Arrays]]
    ) -> None:
        """Takes an array, or anything with a shape and rows by a slice; or a tuple of parts."""
        self.shape = full_shape(weight)
        self._name, self._adapters = name, adapters
        self._parts = weight if isinstance(weight, tuple) else (weight,)
        self.dtype = np.dtype(self._parts[0].dtype)

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        if not all(projection.is_stacked for projection, _ in self._adapters):
            whole = self._read(0, self.shape[0])  # rows are inputs here, not layers
            self._merge(whole, 0)
            return whole[first:last]
        found = self._read(first, last)
        for layer, weight in enumerate(found, first):
            self._merge(weight, layer)
        return found

    def _merge(self, weight: np.ndarray, layer: int) -> None:
        for projection, adapter in self._adapters:
            matrix = changed(projection.matrix(weight), in_layer(adapter, layer))
            projection.put(weight, matrix)

    def _read(self, first: int, last: int) -> np.ndarray:
        out = np.empty((last - first, *self.shape[1:]), np.float32)
        start = 0  # the row at which a part begins
        for part in self._parts:
            low, high = max(first, start), min(last, start + part.shape[0])
            if low < high:
                block = slice(low - start, high - start)
                out[low - first : high - first] = host_rows(self._name, part, block)
            start += part.shape[0]
        return out


def merged(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameters without adapters, whose weights have them added.

    Args:
      params: nested dict of arrays, or objects with a shape and rows by a slice, with adapters (see
        `model.low_rank`). Weights without an adapter are returned as they are.
    """
    flat = flax.traverse_util.flatten_dict(dict(params), sep="/")
    adapters: dict[str, list[tuple[Projection, Arrays]]] = {}
    for name, projection in PROJECTIONS.items():
        place = f"{adapter_name(name)}/"
        arrays = {
            key.removeprefix(place): _joined(leaf)
            for key, leaf in flat.items()
            if key.startswith(place)
        }
        if arrays:
            adapters.setdefault(projection.weight, []).append((projection, arrays))
    plain = {name: leaf for name, leaf in flat.items() if MARK not in name}
    plain |= {name: MergedWeight(name, plain[name], each) for name, each in adapters.items()}
    return flax.traverse_util.unflatten_dict(plain, sep="/")


def _joined(leaf: Any) -> np.ndarray:
    parts = leaf if isinstance(leaf, tuple) else (leaf,)
    return np.concatenate([np.asarray(part, np.float32) for part in parts])
