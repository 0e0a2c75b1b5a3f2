"""Loading and saving parameters: what comes back, and what cannot be held."""

import dataclasses
import os
import sys

import fsspec
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from checkpoint_cases import CONFIG, DTYPES, FLAT, PARAMS, as_numpy_stores, assert_equal, run

from paligemma_lib import model
from paligemma_lib.checkpoint import load_params, placement, save_params


@pytest.fixture
def path(tmp_path):
    return tmp_path / "params.npz"


@pytest.fixture
def small_blocks(monkeypatch):
    """So that even tiny arrays come in several blocks."""
    monkeypatch.setattr(placement, "_BLOCK", 500)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("prefix", ["params/", ""])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(path, dtype, prefix, save, small_blocks):
    save(path, **as_numpy_stores(FLAT, dtype, prefix))
    assert_equal(load_params(path, CONFIG), FLAT, dtype)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_casts_as_numpy_does(path, stored, dtype, small_blocks):
    np.savez(path, **as_numpy_stores(FLAT, stored))
    want = {name: value.astype(jnp.dtype(stored)) for name, value in FLAT.items()}
    assert_equal(load_params(path, CONFIG, dtype=dtype), want, dtype)


def test_each_parameter_may_get_a_type_of_its_own(path):
    np.savez(path, **as_numpy_stores(FLAT, "bfloat16"))

    def dtype(name):
        return "float32" if name.startswith("llm/layers/attn/") else None

    found = load_params(path, CONFIG, dtype=dtype)
    assert found["llm"]["layers"]["attn"]["q_einsum"]["w"].dtype == np.float32
    assert found["llm"]["layers"]["mlp"]["linear"].dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_reads_what_is_written(path, dtype, small_blocks):
    save_params(path, PARAMS, dtype)
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}  # also compares checksums
    assert {name.removeprefix("params/") for name in found} == FLAT.keys()
    for name, value in FLAT.items():
        stored = found[f"params/{name}"]
        assert stored.dtype == ("V2" if dtype == "bfloat16" else dtype)
        want = value.astype(jnp.dtype(dtype))
        np.testing.assert_array_equal(stored.view(jnp.dtype(dtype)), want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_round_trip_is_bit_exact_and_files_repeat(path, tmp_path, dtype):
    save_params(path, PARAMS, dtype)
    params = load_params(path, CONFIG)
    again = tmp_path / "again.npz"
    save_params(again, params)
    assert path.read_bytes() == again.read_bytes()


def test_pieces_are_written_as_one(path):
    parts = cases.flatten(PARAMS)
    name = "llm/layers/mlp/linear"
    parts[name] = (FLAT[name][:1].astype(np.float16), FLAT[name][1:])
    save_params(path, cases.unflatten(parts), "float16")
    assert_equal(load_params(path, CONFIG), FLAT, "float16")
    with pytest.raises(ValueError, match=f"{name} has parts of different dtypes"):
        save_params(path, cases.unflatten(parts))


def test_golden_files_load_and_compute_the_reference_logits(shared, path, optimized):
    params, batch, everything = cases.golden(shared, 2)
    save_params(path, params)
    batch = {key: value[:, :-1] if value.ndim == 2 else value for key, value in batch.items()}
    logits = cases.all_logits(CONFIG, load_params(path, CONFIG), batch)
    supervised = everything["batch/mask_loss"][:, 1:] == 1
    difference = np.abs(np.asarray(logits) - everything["logits"])[supervised]
    assert difference.max() < 1e-4


def test_position_embeddings_of_another_size_are_interpolated(path):
    save_params(path, PARAMS, "bfloat16")
    larger = dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, image_size=64))
    found = load_params(path, larger)["img"]["pos_embedding"]
    stored = FLAT["img/pos_embedding"].astype(jnp.bfloat16).astype(np.float32)
    want = model.siglip.resize_position_embedding(stored, 64)
    assert found.shape == (1, 64, 48)
    np.testing.assert_array_equal(np.asarray(found), want.astype(jnp.bfloat16))


def test_reads_a_url_without_tensorflow(path):
    save_params(path, PARAMS)
    with fsspec.open("memory://bucket/params.npz", "wb") as file:
        file.write(path.read_bytes())
    assert_equal(load_params("memory://bucket/params.npz", CONFIG), FLAT, "float32")
    with pytest.raises(FileNotFoundError, match="memory://bucket/other.npz does not exist"):
        load_params("memory://bucket/other.npz", CONFIG)


def test_a_url_that_needs_a_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ImportError, match=r"paligemma_lib\[gcs\]"):
        load_params("gs://bucket/params.npz", CONFIG)


@pytest.mark.parametrize("function", ["load", "save"])
def test_values_too_large_for_float16_are_an_error(path, function):
    flat = dict(FLAT)
    flat["llm/final_norm/scale"] = flat["llm/final_norm/scale"].copy()
    flat["llm/final_norm/scale"][3] = -70000
    params = cases.unflatten(flat)
    if function == "load":
        save_params(path, params)
    with pytest.raises(ValueError, match=r"llm/final_norm/scale has values up to 70000.*65504"):
        if function == "load":
            load_params(path, CONFIG, dtype="float16")
        else:
            save_params(path, params, "float16")
    assert os.listdir(path.parent) == (["params.npz"] if function == "load" else [])


def test_what_float16_can_hold_is_kept(path):
    flat = dict(FLAT)
    value = 65504.0
    flat["img/head/bias"] = np.full(64, value, np.float32)
    save_params(path, cases.unflatten(flat), "float16")
    np.testing.assert_array_equal(load_params(path, CONFIG)["img"]["head"]["bias"], value)


def test_types_that_cannot_be_written_are_an_error(path):
    with pytest.raises(ValueError, match=r"img/w is int32; supported dtypes: float32"):
        save_params(path, {"img": {"w": np.zeros(3, np.int32)}})
    with pytest.raises(ValueError, match="dtype='float64', expected one of float32"):
        save_params(path, PARAMS, "float64")
    with pytest.raises(ValueError, match="no parameters"):
        save_params(path, {})
    assert not path.exists()


def test_imports_without_tensorflow():
    run("import sys; sys.modules['tensorflow'] = None; import paligemma_lib.checkpoint")
