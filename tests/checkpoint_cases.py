"""A tiny model's parameters, as they are and as files hold them, and programs of their own."""

import os
import subprocess
import sys

import jax.numpy as jnp
import model_cases
import numpy as np

CONFIG = model_cases.tiny_config(2)
PARAMS = model_cases.random_params(CONFIG)
FLAT = model_cases.flatten(PARAMS)
DTYPES = ("float32", "bfloat16", "float16")


def as_numpy_stores(flat, dtype, prefix="params/"):
    """Arrays as the reference writes them; NumPy makes bfloat16 a void type."""
    return {f"{prefix}{name}": value.astype(jnp.dtype(dtype)) for name, value in flat.items()}


def assert_equal(params, flat, dtype):
    found = model_cases.flatten(params)
    assert found.keys() == flat.keys()
    for name, value in flat.items():
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(np.asarray(found[name]), value.astype(jnp.dtype(dtype)), name)


def run(code, *args):
    """What a program prints that gets these arguments."""
    here = os.path.dirname(__file__)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.path.dirname(here)])}
    command = [sys.executable, "-c", code, *map(str, args)]
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout
