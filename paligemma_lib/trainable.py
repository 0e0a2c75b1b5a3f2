"""Which parameters train: choose them by name, split them from the others, put them together.

    rows = trained_rows(abstract_params(config), "attention")
    rows = trained_rows(abstract_params(config), [Select("llm", top_layers=4), "projector"])
    trained, frozen = split(params, rows)
    params = merge(trained, frozen)                          # for the model, decoding, saving

Only the trained ones are differentiated and have optimizer state. Both trees are flat: name ->
parts of the array, laid one after the other along axis 0. Most have one part. Where only the top
layers of a stack train, its lower layers are one array and the upper ones another, so that nothing
is sliced while training and no backward pass runs below (see `model.stack`).
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax

PRESETS = {
    "attention": r"llm/layers/attn/.*",  # the recipe of PaliGemma's fine-tuning notebook
    "llm": r"llm/.*",
    "vision": r"img/(?!head/).*",
    "projector": r"img/head/.*",
    "all": r".*",
}

# Parameters stacked by layer, and what lies below them: it would need a backward pass through all.
STACKS = ("img/Transformer/encoderblock/", "llm/layers/")
_BELOW = ("llm/embedder/", "img/embedding/", "img/pos_embedding")

Parts = dict[str, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Select:
    """Parameters by name.

    Attributes:
      pattern: a key of PRESETS or a regular expression for whole names.
      top_layers: of the stacked layers among them only the last so many, and nothing that lies
        below these, such as the token embedding; None: all.
    """

    pattern: str
    top_layers: int | None = None


Trainable = str | Select | Sequence[str | Select]


def trained_rows(params: Mapping[str, Any], trainable: Trainable) -> dict[str, int]:
    """Returns the first row (layer, for stacks) that trains of each parameter that does.

    Args:
      params: nested dict of arrays or of what has their shapes.
      trainable: a preset, a regular expression, a `Select`, or several of them.

    Raises:
      ValueError: something selects no parameter, or more layers than there are.
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
                f"trained_rows: {select} selects none of the parameters. Give one of "
                f"{', '.join(PRESETS)} or a regular expression for names such as {min(shapes)}"
            )
        for name, row in chosen.items():
            rows[name] = min(row, rows.get(name, row))
    if not rows:
        raise ValueError("trained_rows: nothing is selected, so there is nothing to train")
    return rows


def _rows_of(select: Select, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    try:
        pattern = re.compile(PRESETS.get(select.pattern, select.pattern))
    except re.error as error:
        raise ValueError(f"trained_rows: {select.pattern!r} is no regular expression") from error
    names = [name for name in shapes if pattern.fullmatch(name)]
    if select.top_layers is None:
        return dict.fromkeys(names, 0)
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
    """Splits parameters into trained and frozen ones.

    Args:
      params: nested dict of arrays or `jax.ShapeDtypeStruct`s, or of tuples of these that are
        parts of one.
      rows: as `trained_rows` returns it.

    Returns:
      Trained and frozen parts by name. Arrays that need not be cut are not copied.
    """
    trained: Parts = {}
    frozen: Parts = {}
    for name, leaf in _flat(params).items():
        parts = leaf if isinstance(leaf, tuple) else (leaf,)
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
    """Returns the nested dict of all parameters; those in several parts are tuples."""
    parts = {name: frozen.get(name, ()) + trained.get(name, ()) for name in {**frozen, **trained}}
    return flax.traverse_util.unflatten_dict(
        {name: each[0] if len(each) == 1 else each for name, each in sorted(parts.items())},
        sep="/",
    )


def full_shape(leaf: Any) -> tuple[int, ...]:
    """The shape of a whole array that may be given in parts."""
    if not isinstance(leaf, tuple):
        return tuple(leaf.shape)
    return (sum(part.shape[0] for part in leaf), *leaf[0].shape[1:])


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(dict(params), sep="/")


def _cut(array: Any, row: int) -> tuple[Any, Any]:
    if isinstance(array, jax.ShapeDtypeStruct):
        rest = array.shape[1:]
        return array.update(shape=(row, *rest)), array.update(shape=(array.shape[0] - row, *rest))
    if not isinstance(array, jax.Array):
        return array[:row], array[row:]
    # Jitted with the array's own sharding for both parts: sliced outside, the parts of a split
    # array would come to lie on one device.
    cut = jax.jit(lambda array: (array[:row], array[row:]), out_shardings=(array.sharding,) * 2)
    return cut(array)
