"""Selects the parameters that train, splits them from the frozen ones, and merges both again.

    rows = trained_rows(abstract_params(config), "attention")
    rows = trained_rows(abstract_params(config), [Select("llm", top_layers=4), "projector"])
    trained, frozen = split(params, rows)
    params = merge(trained, frozen)                          # for the model, decoding, saving

Only trained parameters are differentiated and have optimizer state. `trained` and `frozen` are flat
dicts: name -> tuple of parts, which make up the whole array when they are concatenated along axis
0. Most parameters have one part. Where only the top layers of a stack train, the lower layers are
one array and the upper layers another. So no step slices a stack, and no backward pass runs through
the lower layers (see `model.stack`).
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax

PRESETS = {
    "attention": r"llm/layers/attn/.*",  # the recipe of PaliGemma's fine-tuning notebook
    "llm": r"llm/(?!.*/lora/).*",
    "vision": r"img/(?!head/)(?!.*/lora/).*",
    "projector": r"img/head/(?!lora/).*",
    "all": r"(?!.*/lora/).*",
    "lora": r".*/lora/\w+/(a|b|magnitude)",  # adapters, see `model.low_rank`
}

# Name prefixes of the parameters that are stacked by layer, and of those below the stacks. To train
# one of the latter, the backward pass would have to run through all layers.
STACKS = ("img/Transformer/encoderblock/", "llm/layers/")
_BELOW = ("llm/embedder/", "img/embedding/", "img/pos_embedding")

Parts = dict[str, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Select:
    """Selects parameters by name.

    Attributes:
      pattern: a key of PRESETS, or a regular expression that matches whole names.
      top_layers: how many layers of each stack to select, counted from the top. Parameters below
        the stacks, such as the token embedding, are then left out. None selects everything that
        matches.
    """

    pattern: str
    top_layers: int | None = None


Trainable = str | Select | Sequence[str | Select]


def trained_rows(params: Mapping[str, Any], trainable: Trainable) -> dict[str, int]:
    """Returns the first row that trains of each parameter that trains, by name.

    A row is an index along axis 0, which is a layer in a stack. That row and all later ones train.

    Args:
      params: nested dict of arrays, or of objects with a shape such as `jax.ShapeDtypeStruct`.
      trainable: a preset, a regular expression, a `Select`, or a sequence of these.

    Raises:
      ValueError: a selection matches no parameter, or asks for more layers than a stack has.
    """
    if isinstance(trainable, str | Select):
        trainable = [trainable]
    selects = [Select(each) if isinstance(each, str) else each for each in trainable]
    shapes = {name: full_shape(leaf) for name, leaf in _flat(params).items()}
    rows: dict[str, int] = {}
    for select in selects:
        chosen = _rows_of(select, shapes)
        if not chosen:
            raise ValueError(
                f"trained_rows: {select} matches no parameter. Give one of "
                f"{', '.join(PRESETS)} or a regular expression for names such as {min(shapes)}"
            )
        for name, row in chosen.items():
            # Selections are united: of two that overlap, the one with more layers wins.
            rows[name] = min(row, rows.get(name, row))
    if not rows:
        raise ValueError("trained_rows: nothing is selected, so there is nothing to train")
    return rows


def _rows_of(select: Select, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    try:
        pattern = re.compile(PRESETS.get(select.pattern, select.pattern))
    except re.error as error:
        raise ValueError(f"trained_rows: {select.pattern!r} is not a regular expression") from error
    names = [name for name in shapes if pattern.fullmatch(name)]
    if select.top_layers is None:
        return dict.fromkeys(names, 0)
    # With 18 layers and top_layers=4, rows 14..17 of a stack train. Parameters above the stacks,
    # such as the final norm, train as a whole.
    depths = [shapes[name][0] for name in names if name.startswith(STACKS)]
    if not 0 < select.top_layers <= min(depths, default=0):
        found = f"stacks of {sorted(set(depths))} layers" if depths else "no stacked layers"
        raise ValueError(f"trained_rows: {select}, but its pattern selects {found}")
    return {
        name: shapes[name][0] - select.top_layers if name.startswith(STACKS) else 0
        for name in names
        if not name.startswith(_BELOW)
    }


def split(params: Mapping[str, Any], rows: Mapping[str, int]) -> tuple[Parts, Parts]:
    """Splits parameters into trained and frozen parts.

    Args:
      params: nested dict of arrays, quantised or not, or of `jax.ShapeDtypeStruct`s; a leaf may be
        a tuple of these, the parts of one array.
      rows: as `trained_rows` returns it.

    Returns:
      Trained and frozen parts by name. An array is copied only if it has to be cut.
    """
    trained: Parts = {}
    frozen: Parts = {}
    for name, leaf in _flat(params).items():
        parts = leaf if isinstance(leaf, tuple) else (leaf,)
        # `border` counts rows from the start of the current part: rows before it are frozen. With
        # parts of 2 and 3 rows and rows[name] = 3, it is 3 and then 1, so the second part is cut.
        # A parameter that does not train has its border behind the last row.
        border = rows.get(name, sum(part.shape[0] for part in parts))
        below, above = [], []
        for part in parts:
            count = part.shape[0]
            if border >= count:
                below.append(part)
            elif border <= 0:
                above.append(part)
            else:
                lower, upper = _cut(part, border)
                below.append(lower)
                above.append(upper)
            border -= count
        trained |= {name: tuple(above)} if above else {}
        frozen |= {name: tuple(below)} if below else {}
    return trained, frozen


def merge(trained: Mapping[str, tuple], frozen: Mapping[str, tuple]) -> dict[str, Any]:
    """Returns the nested dict of all parameters; a leaf with several parts is a tuple of them."""
    parts = {name: frozen.get(name, ()) + trained.get(name, ()) for name in {**frozen, **trained}}
    return flax.traverse_util.unflatten_dict(
        {name: each[0] if len(each) == 1 else each for name, each in sorted(parts.items())},
        sep="/",
    )


def full_shape(leaf: Any) -> tuple[int, ...]:
    """Returns the shape of a whole array, given as an array or as a tuple of parts."""
    if not isinstance(leaf, tuple):
        return tuple(leaf.shape)
    return (sum(part.shape[0] for part in leaf), *leaf[0].shape[1:])


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(dict(params), sep="/")


def _cut(array: Any, row: int) -> tuple[Any, Any]:
    # The components of a quantised array have the same rows, and each is cut.
    components, tree = jax.tree.flatten(array)
    lower, upper = zip(*(_cut_component(each, row) for each in components), strict=True)
    return jax.tree.unflatten(tree, lower), jax.tree.unflatten(tree, upper)


def _cut_component(array: Any, row: int) -> tuple[Any, Any]:
    if isinstance(array, jax.ShapeDtypeStruct):
        rest = array.shape[1:]
        return array.update(shape=(row, *rest)), array.update(shape=(array.shape[0] - row, *rest))
    if not isinstance(array, jax.Array):
        return array[:row], array[row:]
    # Slicing outside of jit would put the parts of a sharded array on one device. `out_shardings`
    # gives both parts the sharding of the array.
    cut = jax.jit(lambda array: (array[:row], array[row:]), out_shardings=(array.sharding,) * 2)
    return cut(array)
