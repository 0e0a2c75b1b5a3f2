"""Does a checkpoint hold the parameters of a model, and if not, which model is it?

check_params(file.shapes, file.dtypes, config)      # an error that names every difference
name, config, same = closest_model(file.shapes)     # ("paligemma2_3b", ..., True)
"""

import math
from collections.abc import Mapping, Sequence

import flax.traverse_util
import numpy as np

from paligemma_lib.checkpoint.npz import DTYPES
from paligemma_lib.model import abstract_params
from paligemma_lib.model import config as configs
from paligemma_lib.model.config import PaliGemmaConfig

PARTS = ("img", "llm")
POSITION_EMBEDDING = "img/pos_embedding"
MODELS = {
    make.__name__: make
    for make in (
        configs.paligemma_3b,
        configs.paligemma2_3b,
        configs.paligemma2_10b,
        configs.paligemma2_28b,
        configs.nano,
    )
}

_LISTED = 8
_MAX_IMAGE_SIZE = 8192

Shape = tuple[int, ...]


def expected_shapes(config: PaliGemmaConfig, parts: Sequence[str] = PARTS) -> dict[str, Shape]:
    """Returns the shape of every parameter by its name, such as `img/head/bias`.

    Raises:
      ValueError: `parts` are not one or more of PARTS.
    """
    if isinstance(parts, str) or not parts or not set(parts) <= set(PARTS):
        raise ValueError(f"parts={parts!r}, expected a tuple of one or more of {PARTS}")
    params = abstract_params(config)
    leaves = flax.traverse_util.flatten_dict({part: params[part] for part in parts}, sep="/")
    return {name: leaf.shape for name, leaf in leaves.items()}


def check_params(
    shapes: Mapping[str, Shape],
    dtypes: Mapping[str, np.dtype],
    config: PaliGemmaConfig,
    parts: Sequence[str] = PARTS,
    source: str = "the checkpoint",
) -> None:
    """Compares names, shapes and types with those of a model.

    A position embedding may be that of another image size.

    Args:
      shapes: name -> shape of what the checkpoint holds.
      dtypes: name -> dtype of it.
      config: the model.
      parts: the parts of the model that are wanted; the checkpoint need not hold the others.
      source: what the error calls the checkpoint.

    Raises:
      ValueError: lists all that is missing, unexpected, or of another shape or type, and says
        which model it seems to be.
    """
    expected = expected_shapes(config, parts)
    not_wanted = tuple(f"{part}/" for part in PARTS if part not in parts)
    common = [name for name in expected if name in shapes]
    problems = {
        "missing": [name for name in expected if name not in shapes],
        "unexpected": [
            name for name in shapes if name not in expected and not name.startswith(not_wanted)
        ],
        "of another shape": [
            f"{name} {list(shapes[name])}, expected {list(expected[name])}"
            for name in common
            if not _fits(name, shapes[name], expected[name])
        ],
        "of another type": [
            f"{name} {_describe(dtypes[name])}"
            for name in common
            if dtypes[name] not in DTYPES.values()
        ],
    }
    lines = [
        f"  {len(items)} {kind}: {'; '.join(items[:_LISTED])}"
        + (f" and {len(items) - _LISTED} more" if len(items) > _LISTED else "")
        for kind, items in problems.items()
        if items
    ]
    if not lines:
        return
    if problems["of another type"]:
        lines.append(f"  What can be read is {', '.join(DTYPES)}.")
    name, closest, same = closest_model(shapes)
    if same and closest != config:
        size = closest.vision.image_size
        lines.append(f"  It is {name} at {size} pixels: take config.{name}(image_size={size}).")
    held = {part for part in PARTS if any(key.startswith(f"{part}/") for key in shapes)}
    if held and not set(parts) <= held:
        lines.append(f"  To load a part alone, say so: parts={tuple(sorted(held))}.")
    raise ValueError("\n".join([f"{source} does not hold the parameters of this model.", *lines]))


def closest_model(shapes: Mapping[str, Shape]) -> tuple[str, PaliGemmaConfig, bool]:
    """Returns the published model that shares most shapes: its name, and whether all agree."""
    found = []
    for name, make in MODELS.items():
        config = make()
        side = _side_of_grid(shapes.get(POSITION_EMBEDDING, ()))
        if side and side * config.vision.patch_size <= _MAX_IMAGE_SIZE:
            config = make(image_size=side * config.vision.patch_size)
        expected = expected_shapes(config)
        same = len(expected.items() & shapes.items())
        found.append((same, name, config, expected == dict(shapes)))
    return max(found, key=lambda model: model[0])[1:]


def _fits(name: str, shape: Shape, expected: Shape) -> bool:
    if name == POSITION_EMBEDDING and _side_of_grid(shape):
        return shape[2] == expected[2]
    return shape == expected


def _side_of_grid(shape: Shape) -> int | None:
    """Patches along one side, where this is a position embedding of a square picture."""
    if len(shape) != 3 or shape[0] != 1 or shape[1] < 1:
        return None
    side = math.isqrt(shape[1])
    return side if side**2 == shape[1] else None


def _describe(dtype: np.dtype) -> str:
    if dtype.hasobject:
        return "holds pickled Python objects, never loaded because they can run any program"
    return str(dtype)
