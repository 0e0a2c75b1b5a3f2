"""Formats a table of parameters: name, shape, dtype, size, trainable or frozen, sharding.

print(parameter_table(abstract_params(config)))
print(parameter_table(params, trainable=mask))
"""

import itertools
import math
from typing import Any

import jax
import numpy as np

from paligemma_lib.quantized import is_quantized


def parameter_table(params: Any, trainable: Any = None) -> str:
    """Returns a text table with a row for every array, and totals.

    Args:
      params: nested dict of arrays, or of objects with shape and dtype such as
        `jax.ShapeDtypeStruct`, so that a model can be inspected before it is loaded. A leaf in
        parts (see `scan_layers`) gets one row per part, named by its layers.
      trainable: the same nested dict with a bool for every array; None leaves the column empty.

    Raises:
      ValueError: `trainable` has another structure than `params`.
    """
    arrays = jax.tree.leaves(params, is_leaf=is_quantized)
    kinds = [""] * len(arrays)
    if trainable is not None:
        named = {True: "trainable", False: "frozen"}
        told = jax.tree.map(lambda _, flag: named[flag], params, trainable, is_leaf=is_quantized)
        kinds = jax.tree.leaves(told)

    rows = [("name", "shape", "dtype", "parameters", "MiB", "", "sharding")]
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for name, array, kind in zip(_names(params), arrays, kinds, strict=True):
        count = math.prod(array.shape)
        components = jax.tree.leaves(array)  # of a quantised array; else itself
        size = sum(math.prod(c.shape) * np.dtype(c.dtype).itemsize for c in components)
        spec = getattr(getattr(components[0], "sharding", None), "spec", "")
        shape, dtype = str(list(array.shape)), array.kind if is_quantized(array) else array.dtype
        rows.append((name, shape, str(dtype), f"{count:,}", _mib(size), kind, str(spec)))
        # A set, so that arrays of no kind are counted once in the total and not twice.
        for total in {"total", kind or "total"}:
            counts[total] = counts.get(total, 0) + count
            sizes[total] = sizes.get(total, 0) + size
    for total in sorted(counts, reverse=True):
        rows.append((total, "", "", f"{counts[total]:,}", _mib(sizes[total]), "", ""))

    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = (3, 4)
    lines = []
    for row in rows:
        cells = (
            cell.rjust(width) if k in numbers else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _names(params: Any) -> list[str]:
    """Returns the names of all arrays, in the order of `jax.tree.leaves`."""
    names = []
    leaves = jax.tree_util.tree_leaves_with_path(
        params, is_leaf=lambda x: isinstance(x, tuple) or is_quantized(x)
    )
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if isinstance(leaf, tuple):
            borders = itertools.accumulate((part.shape[0] for part in leaf), initial=0)
            names += [f"{name}[{first}:{last}]" for first, last in itertools.pairwise(borders)]
        else:
            names.append(name)
    return names


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f}"
