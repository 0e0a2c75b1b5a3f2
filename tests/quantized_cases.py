"""Parameters of a tiny model in int8 and nf4, and the plain arrays that they are undone to."""

import jax
import model_cases as cases
import numpy as np

from paligemma_lib.parameter_roles import role_of
from paligemma_lib.quantized import dequantized, quantize


def quantized_params(config, kind, dtype="float32", seed=0):
    """Nested dict with every matrix quantised; all else float32."""
    flat = cases.flatten(cases.random_params(config, seed))
    return cases.unflatten(
        {
            name: jax.device_put(quantize(leaf, kind, dtype)) if role_of(name).is_matrix else leaf
            for name, leaf in flat.items()
        }
    )


def undone(params):
    """The same with plain arrays."""
    return jax.tree.map(np.asarray, jax.jit(dequantized)(params))
