"""Tells what becomes of every parameter of a run: one table, made before anything is loaded.

    table = parameter_spec(config, trainable=["attention"], frozen="bfloat16")
    table["llm/layers/attn/q_einsum/w"].trains, .dtype        # "whole", "float32"
    params = abstract(table)                                  # shapes and dtypes, as a nested dict

Loading, freezing, storage, adapters, the estimate of memory, planning and the checks of a run read
this table, so that they agree.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from paligemma_lib.model import abstract_params
from paligemma_lib.model.adapter_params import LowRank, abstract_adapters
from paligemma_lib.model.projections import PROJECTIONS, selected
from paligemma_lib.model.variants import DTYPES, PaliGemmaConfig
from paligemma_lib.parameter_roles import Role, check_covered, role_of
from paligemma_lib.quantized import KINDS
from paligemma_lib.trainable import Trainable, trained_rows


@dataclasses.dataclass(frozen=True)
class ParameterSpec:
    """What a run does with a parameter.

    Attributes:
      shape: its shape.
      role: what it is, and how it is split over devices.
      stored: dtype while it is frozen; "": as the checkpoint has it.
      first_trained: the first row of axis 0 that trains in any stage; None: none does.
      rank: rank of the adapter beside it; 0: it has none.
    """

    shape: tuple[int, ...]
    role: Role
    stored: str
    first_trained: int | None = None
    rank: int = 0

    @property
    def dtype(self) -> str:
        """Dtype in which it is loaded; "": as the checkpoint has it.

        What trains in any stage is float32 from the start: rounded before it trains, it would start
        from other values.
        """
        return self.stored if self.first_trained is None else "float32"

    @property
    def trains(self) -> str:
        """How it trains, in words: "no", "whole", "rows from 14", or "rank 16"."""
        if self.first_trained is None:
            return f"rank {self.rank}" if self.rank else "no"
        return f"rows from {self.first_trained}" if self.first_trained else "whole"


def parameter_spec(
    config: PaliGemmaConfig,
    *,
    trainable: Sequence[Trainable] = (),
    frozen: str = "",
    low_rank: LowRank | None = None,
) -> dict[str, ParameterSpec]:
    """Returns the table of a run's parameters by name, those of its adapter included.

    Args:
      config: the model.
      trainable: what trains in each stage, see `trainable.trained_rows`; empty: nothing trains.
      frozen: dtype of parameters that never train; "": as the checkpoint has them. Of int8 and nf4
        only matrices are stored so (see `Role.is_matrix`), the others as the checkpoint has them.
      low_rank: the adapter that the run adds; None: none.

    Raises:
      ValueError: a rule matches nothing, or a parameter is covered by none; then all are listed.
    """
    params = abstract_params(config)
    shapes = {name: leaf.shape for name, leaf in _flat(params).items()}
    ranks: dict[str, int] = {}
    if low_rank is not None:
        adapters = abstract_adapters(params, low_rank)
        shapes |= {name: leaf.shape for name, leaf in adapters.items()}
        ranks = {PROJECTIONS[name].weight: low_rank.rank for name in selected(low_rank.targets)}
    check_covered(shapes)
    known = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    rows: dict[str, int] = {}
    for stage in trainable:
        for name, row in trained_rows(_nested(known), stage).items():
            rows[name] = min(row, rows.get(name, row))
    roles = {name: role_of(name) for name in shapes}
    return {
        name: ParameterSpec(
            shape,
            roles[name],
            _stored(roles[name], frozen),
            rows.get(name),
            ranks.get(name, 0),
        )
        for name, shape in shapes.items()
    }


def abstract(table: Mapping[str, ParameterSpec], unknown: str = "float32") -> dict[str, Any]:
    """Returns the parameters as a nested dict of `jax.ShapeDtypeStruct`s, as they are loaded.

    Args:
      table: as `parameter_spec` returns it.
      unknown: dtype of what is stored as the checkpoint has it, which is not opened here, and of
        what will be quantised, see `quantized_kinds`.
    """

    def dtype_of(spec: ParameterSpec) -> np.dtype:
        return np.dtype(spec.dtype if spec.dtype in DTYPES else unknown)

    return _nested(
        {name: jax.ShapeDtypeStruct(spec.shape, dtype_of(spec)) for name, spec in table.items()}
    )


def quantized_kinds(table: Mapping[str, ParameterSpec]) -> dict[str, str]:
    """Returns the kind, int8 or nf4, of each parameter that is stored so, by name."""
    return {name: spec.dtype for name, spec in table.items() if spec.dtype in KINDS}


def _stored(role: Role, frozen: str) -> str:
    if role.name == "adapter":
        return "float32"
    return frozen if frozen in DTYPES or role.is_matrix else ""


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(dict(params), sep="/")


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.unflatten_dict(dict(flat), sep="/")
