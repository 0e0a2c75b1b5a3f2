"""Small adapters that the tests share."""

import jax.numpy as jnp
import model_cases as cases
import numpy as np

from paligemma_lib.model.adapter_params import LowRank, abstract_adapters
from paligemma_lib.model.projections import PROJECTIONS, adapter_name, selected

EVERYWHERE = LowRank(3, 6.0, ("all-linear",))


def random_adapters(params: dict, options: LowRank = EVERYWHERE, seed: int = 0) -> dict:
    """Adapters as after training: no array is neutral, and no layer has another one's scale."""
    rng = np.random.default_rng(seed)
    shapes = {name: leaf.shape for name, leaf in abstract_adapters(params, options).items()}
    arrays = {name: rng.normal(0, 0.2, shape) for name, shape in shapes.items()}
    for name in arrays:
        if name.endswith(("/scale", "/magnitude")):
            arrays[name] = np.abs(arrays[name]) + 1
    return {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}


def densely_merged(params: dict, adapters: dict, options: LowRank = EVERYWHERE) -> dict:
    """Parameters with W + s A B in place of W, or DoRA's direction with its magnitude."""
    flat = {name: np.array(leaf) for name, leaf in cases.flatten(params).items()}
    for name in selected(options.targets):
        projection, place = PROJECTIONS[name], adapter_name(name)
        a, b, scale = (np.asarray(adapters[f"{place}/{part}"]) for part in ("a", "b", "scale"))
        for layer in range(len(a)):
            weight = flat[projection.weight]
            weight = weight[layer] if projection.is_stacked else weight
            merged = projection.matrix(weight.copy()) + scale[layer] * a[layer] @ b[layer]
            if options.dora:
                norms = np.linalg.norm(merged, axis=0)
                merged *= np.asarray(adapters[f"{place}/magnitude"])[layer] / norms
            projection.put(weight, merged)
    return cases.unflatten(flat)
