"""Checks whether a checkpoint holds the parameters of a model.

check_params(file.shapes, file.dtypes, config)      # an error that names every difference
"""

import functools
from collections.abc import Mapping, Sequence

import flax.traverse_util
import numpy as np

from paligemma_lib.checkpoint.arrays import DTYPES
from paligemma_lib.checkpoint.configuration import (
    POSITION_EMBEDDING,
    Shape,
    config_of_shapes,
    published_name,
    side_of_grid,
)
from paligemma_lib.model import abstract_params
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.runtime.visible_text import visible

PARTS = ("img", "llm")

_LISTED = 8
_LONGEST = 300  # characters


def expected_shapes(config: PaliGemmaConfig, parts: Sequence[str] = PARTS) -> dict[str, Shape]:
    """Returns the shape of every parameter by its name, such as `img/head/bias`.

    Raises:
      ValueError: `parts` is not a sequence of one or more of PARTS.
    """
    if isinstance(parts, str) or not parts or not set(parts) <= set(PARTS):
        raise ValueError(f"parts={parts!r}, expected a tuple of one or more of {PARTS}")
    wanted = tuple(f"{part}/" for part in parts)
    return {name: shape for name, shape in _all_shapes(config).items() if name.startswith(wanted)}


def check_params(
    shapes: Mapping[str, Shape],
    dtypes: Mapping[str, np.dtype],
    config: PaliGemmaConfig,
    parts: Sequence[str] = PARTS,
    source: str = "the checkpoint",
) -> None:
    """Compares the names, shapes and dtypes in a checkpoint with those of a model.

    The position embedding may have the shape of another image size.

    Args:
      shapes: parameter name -> shape in the checkpoint.
      dtypes: parameter name -> dtype in the checkpoint.
      config: the model.
      parts: the parts of the model that are wanted. The checkpoint need not hold the others.
      source: name of the checkpoint in the error.

    Raises:
      ValueError: a parameter is missing, unexpected, or of another shape or dtype. The message
        lists all of them, and names the model of the checkpoint where it is recognized.
    """
    expected = {name: [shape] for name, shape in expected_shapes(config, parts).items()}
    positions = shapes.get(POSITION_EMBEDDING)
    if positions and POSITION_EMBEDDING in expected and side_of_grid(positions):
        (shape,) = expected[POSITION_EMBEDDING]
        if positions[2] == shape[2]:
            expected[POSITION_EMBEDDING] = [positions]
    not_wanted = tuple(f"{part}/" for part in PARTS if part not in parts)
    found = {name: shape for name, shape in shapes.items() if not name.startswith(not_wanted)}
    lines = differences(expected, found, dtypes)
    if not lines:
        return
    try:
        likely = config_of_shapes(shapes)
    except ValueError:
        likely = None  # the arrays are of no known kind of model
    known = likely and expected_shapes(likely) == dict(shapes)
    if likely and known and (likely.vision, likely.language) != (config.vision, config.language):
        lines.append(f"  It is {describe_model(likely)}.")
    held = {part for part in PARTS if any(name.startswith(f"{part}/") for name in shapes)}
    if held and not set(parts) <= held:
        lines.append(f"  To load only this part, pass parts={tuple(sorted(held))}.")
    raise mismatch(source, lines)


def differences(
    expected: Mapping[str, Sequence[Shape]],
    shapes: Mapping[str, Shape],
    dtypes: Mapping[str, np.dtype | str],
) -> list[str]:
    """Returns the differences between a checkpoint and a model, one line for each kind.

    Args:
      expected: array name -> its allowed shapes.
      shapes: array name -> shape in the checkpoint.
      dtypes: array name -> dtype in the checkpoint, or the file's name of an unsupported dtype.
    """
    common = [name for name in expected if name in shapes]
    problems = {
        "missing": [name for name in expected if name not in shapes],
        "unexpected": [name for name in shapes if name not in expected],
        "of another shape": [
            f"{name} {list(shapes[name])}, expected {' or '.join(str(list(s)) for s in allowed)}"
            for name, allowed in expected.items()
            if name in shapes and shapes[name] not in allowed
        ],
        "of another dtype": [
            f"{name} {_describe_type(dtypes[name])}"
            for name in common
            if dtypes[name] not in DTYPES.values()
        ],
    }
    lines = [f"  {len(items)} {kind}: {listed(items)}" for kind, items in problems.items() if items]
    if problems["of another dtype"]:
        lines.append(f"  Supported dtypes: {', '.join(DTYPES)}.")
    return lines


def mismatch(source: str, lines: Sequence[str]) -> ValueError:
    """Returns the error for a checkpoint that differs from a model as `lines` say."""
    return ValueError("\n".join([f"{source} does not hold the parameters of this model.", *lines]))


def listed(items: Sequence[object]) -> str:
    """Returns the items as text: the first eight, each cut if long, and the number of the others.

    Names come from files, so characters that would act on a terminal are shown as escapes.
    """
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return "; ".join(visible(str(item)[:_LONGEST]) for item in items[:_LISTED]) + more


def describe_model(config: PaliGemmaConfig) -> str:
    """Returns a phrase that names the model and says how to get its configuration."""
    name, size = published_name(config), config.vision.image_size
    if name is None:
        return f"another model at {size} pixels: call checkpoint.read_config on it"
    return f"{name} at {size} pixels: use variants.{name}(image_size={size})"


@functools.lru_cache(maxsize=8)
def _all_shapes(config: PaliGemmaConfig) -> dict[str, Shape]:
    leaves = flax.traverse_util.flatten_dict(abstract_params(config), sep="/")
    return {name: leaf.shape for name, leaf in leaves.items()}


def _describe_type(dtype: np.dtype | str) -> str:
    if isinstance(dtype, np.dtype) and dtype.hasobject:
        return "holds pickled Python objects, never loaded because they can run any program"
    return visible(str(dtype)[:40])
