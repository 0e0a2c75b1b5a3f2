"""Checkpoints in Hugging Face's format, for the tests of reading and of writing them."""

import jax
import model_cases as cases
import pytest

from paligemma_lib.checkpoint import huggingface
from paligemma_lib.checkpoint.huggingface.folder import WEIGHTS

# Their own package: what it writes is read here, and the other way round.
safetensors = pytest.importorskip(
    "safetensors.numpy", reason="needs safetensors (pip install -e '.[test]')"
)
load_file, save_file = safetensors.load_file, safetensors.save_file

DTYPES = ("float32", "bfloat16", "float16")


def random_params(config, dtype="float32"):
    return jax.tree.map(lambda x: x.astype(dtype), cases.random_params(config))


def exported(folder, version=1, dtype="float32"):
    """Returns the model's configuration, its parameters by name, and their folder."""
    config = cases.tiny_config(version)
    params = random_params(config, dtype)
    return config, cases.flatten(params), huggingface.export(params, config, folder / "model")


def rewrite(folder, change):
    """Applies a change to the dict of tensors in a folder's file."""
    stored = load_file(folder / WEIGHTS)
    changed = change(stored)
    save_file(stored if changed is None else changed, folder / WEIGHTS)


def read_all(folder, config, names=None):
    with huggingface.SafetensorsReader(folder, config, names) as file:
        return {name: file.read(name) for name in file.shapes}


def assert_identical(got, expected):
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        assert got[name].dtype == values.dtype, name
        assert got[name].shape == values.shape, name
        assert got[name].tobytes() == values.tobytes(), name
