"""Adapters with random arrays, for the tests of reading, writing and merging them."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import model_cases
import numpy as np

from paligemma_lib.checkpoint import adapters
from paligemma_lib.checkpoint.matching import expected_shapes
from paligemma_lib.model.projections import PROJECTIONS, adapter_name, selected

CONFIG = model_cases.tiny_config(1)
KINDS = ("lora", "rslora", "dora")


def random_adapters(
    config=CONFIG,
    targets: Sequence[str] = ("all-linear",),
    rank: int = 3,
    scale: float = 2.0,
    dora: bool = False,
    seed: int = 0,
    size: float = 0.1,
) -> dict[str, np.ndarray]:
    """An adapter that changes something everywhere; magnitudes are near those of the weights."""
    rng = np.random.default_rng(seed)
    shapes = expected_shapes(config)
    arrays = {}
    for product in selected(targets):
        projection, place = PROJECTIONS[product], adapter_name(product)
        depth, inputs, outputs = projection.shape(shapes[projection.weight])
        normal = functools.partial(rng.normal, 0, size)
        arrays[f"{place}/a"] = normal((depth, inputs, rank)).astype(np.float32)
        arrays[f"{place}/b"] = normal((depth, rank, outputs)).astype(np.float32)
        arrays[f"{place}/scale"] = np.full(depth, scale, np.float32)
        if dora:
            typical = 0.12 * inputs**0.5
            arrays[f"{place}/magnitude"] = rng.uniform(
                0.8 * typical, 1.2 * typical, (depth, outputs)
            ).astype(np.float32)
    return arrays


def write_birds_and_dogs(
    folder: Path, base: str, size: float, config=CONFIG, **of_dogs: Any
) -> None:
    """Two adapters of attention, in folders of these names; `of_dogs` are options of the second."""
    for number, (name, options) in enumerate({"birds": {}, "dogs": of_dogs}.items()):
        arrays = random_adapters(config, ["attention"], seed=number, size=size)
        adapters.write_adapter(folder / name, arrays, base=base, config=config, **options)


def assert_equal(found, expected) -> None:
    """The same names, shapes, dtypes and bits."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
        assert found[name].tobytes() == values.tobytes(), name
