"""Counts the floating-point operations of a program from the shapes of its matrix products.

    jaxpr = jitted.trace(*shapes).jaxpr
    print(matmul_flops(jaxpr.jaxpr, while_iterations=3))

The jaxpr is the program before it is split over devices. The count multiplies the body of a scan by
its iterations, includes what rematerialized blocks recompute, and omits gradients that nothing
uses. (XLA's own count takes the body of every loop once.) All other arithmetic is left out: for
these models it is about one percent.
"""

import math

from jax.extend.core import Jaxpr, JaxprEqn, Var, jaxprs_in_params


def matmul_flops(jaxpr: Jaxpr, while_iterations: float = 1) -> float:
    """Returns the operations of all matrix products: two for each multiplication with its addition.

    Args:
      jaxpr: the program.
      while_iterations: iterations of loops whose number is known only at run time.
    """
    total = 0.0
    # Equations are visited backwards from the outputs. An equation whose results nothing uses, such
    # as the gradient of a frozen input, is skipped: XLA removes it too.
    used = {each for each in jaxpr.outvars if isinstance(each, Var)}
    for equation in reversed(jaxpr.eqns):
        if used.isdisjoint(equation.outvars):
            continue
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
        elif name == "cond" and equation.params.get("branches_platforms"):
            total += inner[-1]  # of `platform_dependent`: the way of accelerators
        elif name == "cond":
            total += max(inner)
        else:
            total += sum(inner)
    return total


def _product(equation: JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    # Result axes are batch axes and the free axes of both sides: prod(result) sums, each over the
    # contracted axes. [m, k] x [k, n] has result [m, n] and costs 2 m n k.
    left, result = (each.aval.shape for each in (equation.invars[0], equation.outvars[0]))  # type: ignore[attr-defined]
    return 2.0 * math.prod(result) * math.prod(left[axis] for axis in contracted)
