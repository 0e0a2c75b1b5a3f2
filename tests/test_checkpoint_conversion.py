"""Conversions and their certificates."""

import dataclasses

import model_cases as cases
import numpy as np
import pytest

from paligemma_lib.checkpoint import conversion, huggingface, load_params, save_params
from paligemma_lib.checkpoint.conversion import compare_checkpoints, convert
from paligemma_lib.checkpoint.huggingface.folder import WEIGHTS

CONFIG = cases.tiny_config(2)
PARAMS = cases.random_params(CONFIG)
DTYPES = ("float32", "bfloat16", "float16")


@pytest.fixture
def npz(tmp_path):
    save_params(tmp_path / "a.npz", PARAMS)
    return tmp_path / "a.npz"


@pytest.fixture
def folder(tmp_path):
    return huggingface.export(PARAMS, CONFIG, tmp_path / "model")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("version", cases.VERSIONS)
def test_there_and_back_is_bit_exact(tmp_path, version, dtype):
    config = cases.tiny_config(version)
    before, folder, after = tmp_path / "before.npz", tmp_path / "model", tmp_path / "after.npz"
    save_params(before, cases.random_params(config), dtype)
    convert(before, folder)
    convert(folder, after)
    assert before.read_bytes() == after.read_bytes()


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_golden_files_convert_with_a_certificate(tmp_path, shared, version):
    params, _, _ = cases.golden(shared, version)
    source = tmp_path / "golden.npz"
    save_params(source, params)
    convert(source, tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "back.npz")
    for target in ("model", "back.npz"):
        found = compare_checkpoints(source, tmp_path / target)
        assert (
            found.equal == found.parameters == sum(v.size for v in cases.flatten(params).values())
        )
        assert found.difference == 0 and found.largest > 1


def test_a_cast_is_a_cast(npz, tmp_path):
    convert(npz, tmp_path / "model", dtype="bfloat16")
    found = load_params(tmp_path / "model", CONFIG)
    for name, value in cases.flatten(PARAMS).items():
        np.testing.assert_array_equal(cases.flatten(found)[name], value.astype("bfloat16"))
    result = compare_checkpoints(npz, tmp_path / "model")
    assert 0 < result.equal < 0.2 * result.parameters
    assert 0.01 < result.difference < result.largest


def test_one_changed_value_shows_in_the_certificate(npz, tmp_path):
    params = cases.unflatten({k: v.copy() for k, v in cases.flatten(PARAMS).items()})
    params["img"]["head"]["kernel"][5, 7] += 1
    save_params(tmp_path / "b.npz", params)
    result = compare_checkpoints(npz, tmp_path / "b.npz")
    assert result.equal == result.parameters - 1
    assert result.difference > 1e-4


def test_settings_that_an_npz_cannot_say_are_named(tmp_path):
    language = dataclasses.replace(CONFIG.language, final_softcap=5.0)
    config = dataclasses.replace(CONFIG, language=language)
    folder = huggingface.export(PARAMS, config, tmp_path / "model")
    convert(folder, tmp_path / "b.npz")
    result = compare_checkpoints(folder, tmp_path / "b.npz")
    assert result.settings == {"language.final_softcap": None}
    assert result.difference == 0 and result.largest <= 5
    assert str(result).endswith("\nbut language.final_softcap is None in the result")


def test_the_tokenizer_is_copied(npz, tmp_path):
    (tmp_path / "some.model").write_bytes(b"pieces")
    convert(npz, tmp_path / "model", tokenizer=tmp_path / "some.model")
    assert (tmp_path / "model" / "tokenizer.model").read_bytes() == b"pieces"


def test_an_empty_folder_is_filled(npz, tmp_path):
    (tmp_path / "model").mkdir()
    convert(npz, tmp_path / "model")
    assert (tmp_path / "model" / WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ("model.safetensors", {}, ValueError, "ends in .safetensors, expected a name that ends in"),
        ("gs://bucket/b.npz", {}, ValueError, "not a local path"),
        ("there.npz", {}, FileExistsError, "there.npz exists: remove it"),
        ("there", {}, FileExistsError, "there exists: remove it"),
        ("no/model", {}, FileNotFoundError, "no is not a folder; create it"),
        ("b.npz", {"tokenizer": "t.model"}, ValueError, "convert to a folder to add a tokenizer"),
        ("model", {"tokenizer": "t.model"}, FileNotFoundError, "no tokenizer at"),
        ("model", {"dtype": "int8"}, ValueError, "dtype='int8', expected one of"),
        ("b.npz", {"dtype": "float16"}, ValueError, "bias has values up to 70000, too large"),
        ("model", {"dtype": "float16"}, ValueError, "bias has values up to 70000, too large"),
    ],
)
def test_what_cannot_be_converted_leaves_nothing(tmp_path, target, options, error, message):
    params = cases.unflatten(dict(cases.flatten(PARAMS)))
    params["img"]["head"]["bias"] = np.full(64, 70000, np.float32)
    save_params(tmp_path / "a.npz", params)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "there.npz").write_bytes(b"old")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        place = target if "://" in target else tmp_path / target
        convert(tmp_path / "a.npz", place, **options)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.npz").read_bytes() == b"old"


# --- The command


def test_a_certificate_holds_one_checkpoint_at_a_time(npz, folder, monkeypatch):
    alive = []
    load = conversion.load_params

    def counted(path, config):
        alive.append(sum(a.size for a in conversion.jax.live_arrays()))
        return load(path, config)

    monkeypatch.setattr(conversion, "load_params", counted)
    compare_checkpoints(npz, folder)
    assert alive[1] - alive[0] < 10_000  # of 195,376 parameters
