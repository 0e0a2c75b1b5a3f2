"""Says of every parameter what it is, how it is split over devices, and whether it is quantised.

    role = role_of("llm/layers/mlp/linear")
    role.name, role.fsdp_axis, role.tensor_axis, role.is_matrix    # "language mlp", 2, 1, True

The rules are the only place that names parameters one by one: freezing, storage, sharding, the
estimate of memory and export ask here. Each parameter must be covered by one rule.
"""

import dataclasses
import re
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Role:
    """What a parameter is.

    Attributes:
      pattern: regular expression for whole names of such parameters.
      name: its part of the model.
      fsdp_axis: axis that is split under "fsdp"; None: replicated. Axis 0 of a stack is the layer,
        which is never split, since all devices work on the same layer.
      tensor_axis: the same for "tensor".
      is_matrix: whether a frozen one may be stored in int8 or 4 bits. Vectors and the few numbers
        outside the layers would save nothing, and their errors count more.
    """

    pattern: str
    name: str
    fsdp_axis: int | None = None
    tensor_axis: int | None = None
    is_matrix: bool = False


# Under "fsdp" the split axis is the width of the model, D. Under "tensor" a product splits its
# output (heads, or inner values of the MLP) and the product that follows splits its input, so that
# only the result of the second one needs an all-reduce. The stacks have these shapes (L layers, N
# heads, K key heads, H width of a head, F inner values, r rank, I and O inputs and outputs):
#
#     query kernel [L, D, N, H]    out kernel [L, N, H, D]         Dense_0 [L, D, F]
#     q_einsum     [L, N, D, H]    kv_einsum  [L, 2, K, D, H]      gating_einsum [L, 2, D, F]
#     lora a       [L, I, r]       lora b     [L, r, O]
#
# Small vectors are replicated: to gather them would cost more than to store them.
ROLES = (
    Role(r"img/embedding/kernel", "vision embedding", 3),
    Role(r"img/pos_embedding", "vision embedding", 2),
    Role(r"img/head/kernel", "projector", 1),
    Role(r"img/.*/(query|key|value)/kernel", "vision attention", 1, 2, is_matrix=True),
    Role(r"img/.*/out/kernel", "vision attention", 3, 1, is_matrix=True),
    Role(r"img/.*/Dense_0/kernel", "vision mlp", 1, 2, is_matrix=True),
    Role(r"img/.*/Dense_1/kernel", "vision mlp", 2, 1, is_matrix=True),
    Role(r"img/.*/(query|key|value)/bias", "vision attention", None, 1),
    Role(r"img/.*/Dense_0/bias", "vision mlp", None, 1),
    Role(r"img/.*/out/bias", "vision attention"),
    Role(r"img/.*/Dense_1/bias", "vision mlp"),
    Role(r"img/embedding/bias", "vision embedding"),
    Role(r"img/head/bias", "projector"),
    Role(r"img/.*[nN]orm.*/(scale|bias)", "vision norm"),
    Role(r"llm/embedder/input_embedding", "language embedding", 1, 0, is_matrix=True),
    Role(r"llm/layers/attn/q_einsum/w", "language attention", 2, 1, is_matrix=True),
    Role(r"llm/layers/attn/kv_einsum/w", "language attention", 3, 2, is_matrix=True),
    Role(r"llm/layers/attn/attn_vec_einsum/w", "language attention", 3, 1, is_matrix=True),
    Role(r"llm/layers/mlp/gating_einsum", "language mlp", 2, 3, is_matrix=True),
    Role(r"llm/layers/mlp/linear", "language mlp", 2, 1, is_matrix=True),
    Role(r"llm/.*_norm/scale", "language norm"),
    Role(r".*/lora/\w+/a", "adapter", 1),
    Role(r".*/lora/\w+/b", "adapter", 2),
    Role(r".*/lora/\w+/(scale|magnitude)", "adapter"),
)


def role_of(name: str) -> Role:
    """Returns the role of a parameter; raises ValueError unless one rule covers it."""
    matching = [role for role in ROLES if re.fullmatch(role.pattern, name)]
    if len(matching) != 1:
        raise ValueError(f"{len(matching)} rules match the parameter {name}, expected 1")
    return matching[0]


def check_covered(names: Iterable[str]) -> None:
    """Raises ValueError with all parameters that no rule covers, or that several do."""
    wrong = [
        name for name in names if sum(bool(re.fullmatch(role.pattern, name)) for role in ROLES) != 1
    ]
    if wrong:
        raise ValueError(
            f"{len(wrong)} parameters are covered by no rule of `parameter_roles`, or by "
            f"several: {', '.join(wrong[:8])}{', ...' * (len(wrong) > 8)}"
        )
