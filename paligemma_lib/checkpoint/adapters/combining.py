"""Makes one adapter of several, whose change is the weighted sum of their changes.

    adapters = combined([(birds, 0.5), (dogs, 0.5)], config, matrix)

Adapter i changes the weight W by D_i: s_i A_i B_i in LoRA, and in DoRA, with f_i = m_i / |W + s_i
A_i B_i| for each output, by f_i (W + s_i A_i B_i) - W. The weighted sum is

    W + sum w_i D_i = F W + A B,    F = 1 + sum w_i (f_i - 1),    A = [A_1, A_2, ...],
                                    B = [w_1 f_1 s_1 B_1; w_2 f_2 s_2 B_2; ...]

where f_i is 1 in LoRA. Without DoRA that is LoRA of the ranks' sum. With it, it is DoRA again, of
the magnitude F |W + A B / F|, and B / F in place of B.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from paligemma_lib.checkpoint.adapters.adapter_products import Arrays, products_of
from paligemma_lib.model.projections import PROJECTIONS, adapter_name
from paligemma_lib.model.variants import PaliGemmaConfig

_SMALLEST = 1e-6  # of |F|, which divides; below it, an error of that share of W

Matrix = Callable[[str, int], np.ndarray]


def combined(
    adapters: Sequence[tuple[Mapping[str, Any], float]], config: PaliGemmaConfig, matrix: Matrix
) -> dict[str, np.ndarray]:
    """Returns the arrays of one adapter, float32 by name.

    Args:
      adapters: the arrays of each adapter by name, and its weight.
      config: the base model.
      matrix: returns the weight [I, O] of a product, named as in PROJECTIONS, in a layer. It is
        asked for products with magnitudes only.

    Raises:
      ValueError: an adapter's arrays do not fit the model, see `adapter_products.products_of`.
    """
    parts = [(products_of(arrays, config), weight) for arrays, weight in adapters]
    if len(parts) == 1 and parts[0][1] == 1:
        return _named(parts[0][0])
    found: dict[str, Arrays] = {}
    for product in PROJECTIONS:
        mine = [(arrays[product], weight) for arrays, weight in parts if product in arrays]
        if not mine:
            continue
        layers = [
            _of_layer(
                [(in_layer(arrays, layer), weight) for arrays, weight in mine],
                functools.partial(matrix, product, layer),
            )
            for layer in range(len(mine[0][0]["scale"]))
        ]
        found[product] = {part: np.stack([each[part] for each in layers]) for part in layers[0]}
    return _named(found)


def in_layer(arrays: Arrays, layer: int) -> Arrays:
    """Returns a product's arrays in one layer."""
    return {part: array[layer] for part, array in arrays.items()}


def changed(matrix: np.ndarray, adapter: Arrays) -> np.ndarray:
    """Returns float32[I, O], a matrix with an adapter of its layer merged into it.

    Args:
      matrix: dtype[I, O].
      adapter: the layer's share of "a", "b", "scale" and perhaps "magnitude".
    """
    total = adapter["a"] @ adapter["b"]  # changed in place: a matrix may have 128 MiB
    total *= adapter["scale"]
    total += matrix
    if "magnitude" in adapter:
        total *= _factors(total, adapter)
    return total


def _factors(total: np.ndarray, adapter: Arrays) -> np.ndarray:
    """Returns float32[O], magnitude / |W + s A B|, where `total` is that sum; 1 in LoRA."""
    if "magnitude" not in adapter:
        return np.ones(total.shape[1], np.float32)
    norms, magnitude = _norms(total), adapter["magnitude"]
    found = np.where(magnitude == 0, 1, magnitude / np.where(norms == 0, 1, norms))
    return found.astype(np.float32)


def _norms(matrix: np.ndarray) -> np.ndarray:
    """Returns float64[O], the norm of each output's weights."""
    return np.sqrt(np.einsum("io,io->o", matrix, matrix, dtype=np.float64))


def _of_layer(parts: Sequence[tuple[Arrays, float]], matrix: Callable[[], np.ndarray]) -> Arrays:
    """Returns the combination of a product's adapters in one layer."""
    a = np.concatenate([arrays["a"] for arrays, _ in parts], axis=1)
    if not any("magnitude" in arrays for arrays, _ in parts):
        b = np.concatenate([weight * arrays["scale"] * arrays["b"] for arrays, weight in parts])
        return {"a": a, "b": b.astype(np.float32), "scale": np.ones((), np.float32)}
    weights = matrix()
    each = [
        (_factors(weights + arrays["scale"] * (arrays["a"] @ arrays["b"]), arrays), arrays, weight)
        for arrays, weight in parts
    ]
    total = 1 + sum(weight * (factor - 1) for factor, _, weight in each)
    total = np.where(np.abs(total) < _SMALLEST, _SMALLEST, total)
    b = np.concatenate(
        [weight * factor / total * arrays["scale"] * arrays["b"] for factor, arrays, weight in each]
    ).astype(np.float32)
    magnitude = (total * _norms(weights + a @ b)).astype(np.float32)
    return {"a": a, "b": b, "scale": np.ones((), np.float32), "magnitude": magnitude}


def _named(products: Mapping[str, Arrays]) -> dict[str, np.ndarray]:
    return {
        f"{adapter_name(product)}/{part}": array
        for product, arrays in products.items()
        for part, array in arrays.items()
    }
