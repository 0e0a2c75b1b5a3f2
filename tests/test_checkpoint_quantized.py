"""Checkpoints that are quantised while they are loaded, and written undone."""

import os

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from checkpoint_cases import CONFIG, FLAT, PARAMS, run

from paligemma_lib.checkpoint import huggingface, load_params, placement, save_params
from paligemma_lib.checkpoint.finite import NotFinite
from paligemma_lib.parameter_roles import role_of
from paligemma_lib.quantized import KINDS, is_quantized, quantize


@pytest.fixture
def path(tmp_path):
    save_params(tmp_path / "params.npz", PARAMS, "bfloat16")
    return tmp_path / "params.npz"


def flatten(params):
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_quantized)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_are_quantised_row_by_row_and_all_else_is_as_stored(path, kind, monkeypatch):
    monkeypatch.setattr(placement, "_BLOCK", 8000)
    found = flatten(load_params(path, CONFIG, dtype=kind))
    assert found.keys() == FLAT.keys()
    for name, leaf in found.items():
        assert is_quantized(leaf) == role_of(name).is_matrix, name
        stored = FLAT[name].astype(jnp.bfloat16)
        if is_quantized(leaf):
            assert (leaf.kind, leaf.dtype, leaf.shape) == (kind, CONFIG.dtype, stored.shape)
            expected = quantize(stored, kind, CONFIG.dtype)
            jax.tree.map(np.testing.assert_array_equal, leaf, expected)
        else:
            assert leaf.dtype == jnp.bfloat16
            np.testing.assert_array_equal(leaf, stored)


def test_a_folder_of_safetensors_is_quantised_alike(path, tmp_path):
    folder = huggingface.export(PARAMS, CONFIG, tmp_path / "model", dtype="bfloat16")
    jax.tree.map(
        np.testing.assert_array_equal,
        load_params(folder, CONFIG, dtype="nf4"),
        load_params(path, CONFIG, dtype="nf4"),
    )


def test_what_trains_is_loaded_as_it_must_be(path):
    def dtype(name):
        return "float32" if name.startswith("llm/layers/attn/") else "nf4"

    found = flatten(load_params(path, CONFIG, dtype=dtype))
    assert found["llm/layers/attn/q_einsum/w"].dtype == np.float32
    assert found["llm/layers/mlp/linear"].kind == "nf4"


def test_what_is_written_is_what_was_undone(path, tmp_path):
    params = load_params(path, CONFIG, dtype="nf4")
    save_params(tmp_path / "written.npz", params, "float32")
    written = cases.flatten(load_params(tmp_path / "written.npz", CONFIG))
    for name, leaf in flatten(params).items():
        expected = leaf[:] if is_quantized(leaf) else np.asarray(leaf, np.float32)
        np.testing.assert_array_equal(written[name], expected, name)


def test_values_that_are_not_finite_are_refused_all_the_same(path, tmp_path):
    flat = dict(FLAT) | {"llm/layers/mlp/linear": FLAT["llm/layers/mlp/linear"].copy()}
    flat["llm/layers/mlp/linear"][1, 2, 3] = np.nan
    np.savez(tmp_path / "bad.npz", **flat)
    with pytest.raises(NotFinite, match=r"llm/layers/mlp/linear \(1 of 24,576\)"):
        load_params(tmp_path / "bad.npz", CONFIG, dtype="int8")


def test_a_scale_that_activations_cannot_hold_is_refused(tmp_path):
    import dataclasses

    flat = dict(FLAT) | {"llm/layers/mlp/linear": FLAT["llm/layers/mlp/linear"] * 1e6}
    np.savez(tmp_path / "large.npz", **flat)
    config = dataclasses.replace(CONFIG, dtype="float16")
    with pytest.raises(ValueError, match="mlp/linear has values up to .* too large for float16"):
        load_params(tmp_path / "large.npz", config, dtype="nf4")


def test_an_unknown_kind_is_told(path):
    with pytest.raises(ValueError, match="dtype='int4', expected one of float32, .*, int8, nf4"):
        load_params(path, CONFIG, dtype="int4")


MEMORY = """
import sys
import jax, numpy as np
from jax.sharding import SingleDeviceSharding
from paligemma_lib.checkpoint import placement
from paligemma_lib.checkpoint.npz import NpzReader, write_npz
from paligemma_lib.quantized import quantize

path, kind = sys.argv[1:]
shape, stored = (8, 2048, 8192), jax.numpy.dtype("bfloat16")  # 32 MiB a layer

def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) * 1024

layer = np.full(shape[1:], 0.5, stored)
with open(path, "wb") as file:
    write_npz(file, [("w", shape, stored, (layer for _ in range(shape[0])))])
del layer
quantize(np.ones((1, 1 << 22), stored), kind, "bfloat16")  # compiles
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
with NpzReader(path) as file:
    array = placement.to_devices(
        "w", shape, stored, SingleDeviceSharding(jax.devices()[0]),
        lambda rows, out: file.read("w", rows, out), stored, kind=kind,
    )
jax.block_until_ready(array)
extra = resident("VmHWM") - before - array.nbytes
assert extra <= 160 << 20, extra / 2**20  # a layer, and the few values that are in work
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_host_holds_the_result_and_at_most_a_layer(tmp_path, kind):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs a kernel that resets a process's peak memory")
    run(MEMORY, tmp_path / "stack.npz", kind)
