"""Groups an adapter's arrays by product, on the host, after a check against the model.

products = products_of(adapters, config)
products["llm/q_proj"]["a"]                    # float32[L, I, r]
adapted_layers(products["llm/q_proj"])         # [0, 1, ...], those that are not all zeros
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from paligemma_lib.checkpoint.finite import only_finite
from paligemma_lib.checkpoint.matching import differences, expected_shapes
from paligemma_lib.checkpoint.placement import to_host
from paligemma_lib.model.projections import PROJECTIONS, adapter_name
from paligemma_lib.model.variants import PaliGemmaConfig

Arrays = dict[str, np.ndarray]  # "a", "b", "scale" and perhaps "magnitude", see `model.low_rank`


def products_of(adapters: Mapping[str, Any], config: PaliGemmaConfig) -> dict[str, Arrays]:
    """Returns the arrays of each product that has an adapter, as float32 on the host.

    Args:
      adapters: the arrays by name, as `read_adapter` and `model.adapter_params` name them.
      config: the base model.

    Raises:
      ValueError: an array is missing, unexpected or of another shape or dtype (one error lists
        all), is held by other processes, or has values that are NaN or infinite; or there is none.
    """
    shapes = expected_shapes(config)
    expected: dict[str, list[tuple[int, ...]]] = {}
    names: dict[str, dict[str, str]] = {}
    for product, projection in PROJECTIONS.items():
        place = adapter_name(product)
        if not any(name.startswith(f"{place}/") for name in adapters):
            continue
        depth, inputs, outputs = projection.shape(shapes[projection.weight])
        a = adapters.get(f"{place}/a")
        rank = a.shape[-1] if a is not None and len(a.shape) == 3 else 1
        parts = {"a": (depth, inputs, rank), "b": (depth, rank, outputs), "scale": (depth,)}
        if f"{place}/magnitude" in adapters:
            parts["magnitude"] = (depth, outputs)
        expected |= {f"{place}/{part}": [shape] for part, shape in parts.items()}
        names[product] = {part: f"{place}/{part}" for part in parts}
    lines = differences(
        expected,
        {name: tuple(array.shape) for name, array in adapters.items()},
        {name: np.dtype(array.dtype) for name, array in adapters.items()},
    )
    if lines or not names:
        raise ValueError(
            "\n".join(["the arrays are not an adapter of this model:", *(lines or ["  none"])])
        )
    return {
        product: {part: _on_host(name, adapters[name]) for part, name in parts.items()}
        for product, parts in names.items()
    }


def adapted_layers(arrays: Arrays) -> list[int]:
    """Returns the layers in which a product is adapted: not all of its arrays are zeros there."""
    depth = len(arrays["scale"])
    return [layer for layer in range(depth) if any(each[layer].any() for each in arrays.values())]


def _on_host(name: str, array: Any) -> np.ndarray:
    blocks = to_host(name, array, np.dtype(np.float32))
    return np.concatenate(list(only_finite("the adapter", name, blocks)))
