"""Counts the parameters of a run by group, for its terminal and its report.

print(trainable_summary(state))
parameter_groups(state)[0].parameters
"""

import math

from paligemma_lib.report import ParameterGroup
from paligemma_lib.train import TrainState
from paligemma_lib.trainable import full_shape


def parameter_groups(state: TrainState) -> list[ParameterGroup]:
    """Counts parameters by group: by the first parts of their names, trained groups first."""
    groups = []
    for parts_by_name, trainable in ((state.trained, True), (state.frozen, False)):
        shapes: dict[str, list[int]] = {}
        for name, parts in parts_by_name.items():
            group = "/".join(name.split("/")[: 3 if name.startswith("llm/layers") else 2])
            shapes.setdefault(group, []).append(math.prod(full_shape(parts)))
        groups += [
            ParameterGroup(group, len(counts), sum(counts), trainable)
            for group, counts in shapes.items()
        ]
    return groups


def trainable_summary(state: TrainState) -> str:
    """Returns a table, 80 columns wide, of the groups of parameters that train or are frozen."""
    groups = parameter_groups(state)
    width = max(len(each.name) for each in groups)
    lines = [
        f"{each.name:<{width}}  {each.parameters:>14,}  {'trains' if each.trainable else 'frozen'}"
        for each in groups
    ]
    total = sum(each.parameters for each in groups)
    trained = sum(each.parameters for each in groups if each.trainable)
    return "\n".join([*lines, f"{trained:,} of {total:,} parameters train"])
