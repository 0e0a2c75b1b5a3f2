"""Values that are no numbers cross no border: not in, not out, and `show` and `convert` say so."""

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from checkpoint_cases import CONFIG, DTYPES, FLAT, PARAMS, run
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from paligemma_lib.checkpoint import conversion, huggingface, load_params, placement, save_params
from paligemma_lib.checkpoint.conversion import convert
from paligemma_lib.checkpoint.exporting import ExportedParameter
from paligemma_lib.checkpoint.finite import count_not_finite
from paligemma_lib.checkpoint.huggingface import format
from paligemma_lib.cli import main

NAME = "llm/layers/mlp/linear"
WHAT = r"values are NaN or infinite in llm/layers/mlp/linear \(2 of 24,576\)"


def poisoned(name=NAME, value=np.nan):
    """The parameters, two values of which are no numbers."""
    flat = {key: values.copy() for key, values in FLAT.items()}
    flat[name].reshape(-1)[[5, -1]] = value, np.inf
    return cases.unflatten(flat)


@pytest.fixture(params=["npz", "folder"])
def bad(request, tmp_path, monkeypatch):
    """A checkpoint of either kind with two such values, as other programs write it."""
    with monkeypatch.context() as patch:
        patch.setattr(
            "paligemma_lib.checkpoint.exporting.only_finite", lambda _, __, blocks: blocks
        )
        if request.param == "folder":
            return huggingface.export(poisoned(), CONFIG, tmp_path / "bad", dtype="bfloat16")
        save_params(tmp_path / "bad.npz", poisoned(), "bfloat16")
        return tmp_path / "bad.npz"


@pytest.mark.parametrize("dtype", DTYPES)
@given(bits=arrays.arrays(np.uint32, st.integers(1, 40)), data=st.data())
def test_any_bits_are_counted_as_numpy_does(dtype, bits, data):
    kind = jnp.dtype(dtype)
    values = bits.view(f"u{kind.itemsize}").view(kind)
    if data.draw(st.booleans()):
        values = values.reshape(2, -1).T if len(values) % 2 == 0 else values[::2]
    assert count_not_finite(values) == np.count_nonzero(~np.isfinite(values.astype(np.float32)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_edges_of_a_type(dtype):
    top = jnp.finfo(dtype).max
    assert count_not_finite(np.array([top, -top, 0.0, -0.0], dtype)) == 0
    assert count_not_finite(np.array([np.nan, -np.nan, np.inf, -np.inf], dtype)) == 4
    assert count_not_finite(np.zeros((0, 3), dtype)) == 0


@pytest.mark.parametrize("dtype", [None, "float32", "float16"])
@pytest.mark.parametrize("block", [500, 32 << 20])
def test_they_are_not_loaded(bad, dtype, block, monkeypatch):
    monkeypatch.setattr(placement, "_BLOCK", block)
    with pytest.raises(ValueError, match=f"{bad}: {WHAT}"):
        load_params(bad, CONFIG, dtype=dtype)
    load_params(bad, CONFIG, parts=("img",))


SHARDED = """
import sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
import model_cases as cases
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from paligemma_lib.checkpoint import load_params
mesh = Mesh(np.array(jax.devices()).reshape(4), ("x",))
config = cases.tiny_config(2)
def spec(leaf):
    split = leaf.shape[-1] % 4 == 0
    return NamedSharding(mesh, P(*[None] * (leaf.ndim - 1), "x") if split else P())
try:
    load_params(sys.argv[1], config, sharding=jax.tree.map(spec, cases.random_params(config)))
except ValueError as error:
    print(error)
"""


def test_they_are_not_loaded_onto_several_devices(bad):
    assert "in llm/layers/mlp/linear (2 of 24,576)" in run(SHARDED, bad)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [None, "float16"])
@pytest.mark.parametrize("name", [NAME, "llm/embedder/input_embedding", "img/head/bias"])
def test_they_are_not_written(tmp_path, value, dtype, name):
    params = poisoned(name, value)
    (tmp_path / "a.npz").write_bytes(b"old")
    for save in (
        lambda: save_params(tmp_path / "a.npz", params, dtype),
        lambda: save_params(tmp_path / "a.npz", jax.tree.map(jnp.asarray, params), dtype),
        lambda: huggingface.export(params, CONFIG, tmp_path / "model", dtype=dtype),
    ):
        with pytest.raises(ValueError, match=rf"cannot be written: .* in {name} \(2 of "):
            save()
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == b"old"


def test_all_parts_of_a_parameter_are_counted():
    parts = np.full((1, 4), np.nan, np.float32), np.zeros((2, 4)), np.full((1, 4), np.inf)
    parts = tuple(part.astype(np.float32) for part in parts)
    with pytest.raises(ValueError, match=r"w \(8 of 16\)"):
        list(ExportedParameter("w", parts, np.dtype(np.float32)).blocks())


def test_show_names_them_all(bad, capsys):
    assert main(["show", str(bad)]) == 1
    out, err = capsys.readouterr()
    assert not out and f"{bad}: values are NaN or infinite in {NAME} (2 of 24,576)" in err


@pytest.mark.parametrize("target", ["good.npz", "good"])
def test_they_are_not_converted(bad, tmp_path, target, capsys):
    assert main(["convert", str(bad), str(tmp_path / target)]) == 1
    told = f"{bad} cannot be converted: values are NaN or infinite in {NAME} (2 of 24,576)"
    assert told in capsys.readouterr().err
    assert not (tmp_path / target).exists()


def test_logits_that_are_not_finite_are_a_failure(tmp_path, capsys):
    """Finite values of which a float32 model makes infinities."""
    flat = dict(FLAT)
    flat["llm/final_norm/scale"] = np.full_like(FLAT["llm/final_norm/scale"], 3e38)
    save_params(tmp_path / "a.npz", cases.unflatten(flat))
    assert main(["convert", str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]) == 1
    out, err = capsys.readouterr()
    assert "parameters are bit-equal" in out and "logits are not finite" in err
    assert not conversion.compare_checkpoints(tmp_path / "a.npz", tmp_path / "b.npz").is_finite


def test_padding_of_huge_values_is_finite(tmp_path):
    name = "llm/embedder/input_embedding"
    flat = {**FLAT, name: np.full_like(FLAT[name], 3e38)}
    folder = huggingface.export(cases.unflatten(flat), CONFIG, tmp_path / "model")
    header = format.read_header(folder / "model.safetensors")
    values = np.memmap(folder / "model.safetensors", np.uint8, "r")
    for entry in header.values():
        stored = values[entry.start : entry.start + entry.num_bytes]
        assert count_not_finite(np.array(stored).view(entry.dtype)) == 0


def test_a_good_one_is_converted_as_before(tmp_path):
    save_params(tmp_path / "a.npz", PARAMS)
    convert(tmp_path / "a.npz", tmp_path / "model")
    assert conversion.compare_checkpoints(tmp_path / "a.npz", tmp_path / "model").is_finite
