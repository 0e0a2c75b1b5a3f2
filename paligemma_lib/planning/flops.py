"""Floating-point operations of a program, counted from the shapes of its matrix products.

    jaxpr = jitted.trace(*shapes).jaxpr
    print(matmul_flops(jaxpr.jaxpr, while_iterations=3))

The count is of what JAX asks for, before it is split over devices: a scan as often as it turns,
what a rematerialized block does again, and no gradient that nobody uses. (XLA's own count takes
every loop for one turn.) All other arithmetic is left out: for these models it is a percent.
"""

import math

from jax.extend.core import Jaxpr, JaxprEqn, Var, jaxprs_in_params


def matmul_flops(jaxpr: Jaxpr, while_iterations: float = 1) -> float:
    """Returns two operations for each multiplication with its addition.

    Args:
      jaxpr: the program.
      while_iterations: turns of loops whose number is known only when they run.
    """
    total = 0.0
    # Backwards from the outputs: what nobody uses, such as the gradient of a frozen input, is left
    # out, as XLA leaves it out.
    used = {each for each in jaxpr.outvars if isinstance(each, Var)}
    for equation in reversed(jaxpr.eqns):
        if used.isdisjoint(equation.outvars):
            continue  # XLA leaves it out too
        used.update(each for each in equation.invars if isinstance(each, Var))
        name = equation.primitive.name
        if name == "dot_general":
            total += _product(equation)
            continue
        inner = [matmul_flops(each, while_iterations) for each in jaxprs_in_params(equation.params)]
        if name == "scan":
            total += equation.params["length"] * sum(inner)
        elif name == "while":
            total += while_iterations * sum(inner)
        elif name == "cond":
            total += max(inner)
        else:
            total += sum(inner)
    return total


def _product(equation: JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, result = (each.aval.shape for each in (equation.invars[0], equation.outvars[0]))  # type: ignore[attr-defined]
    return 2.0 * math.prod(result) * math.prod(left[axis] for axis in contracted)
