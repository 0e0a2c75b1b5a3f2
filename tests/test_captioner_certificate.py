"""The certificate of a merged file: it holds for what was merged, and for nothing else."""

import dataclasses

import adapter_cases
import captioning_cases as cases
import numpy as np
import pytest

import paligemma_lib as pg
from paligemma_lib.captioner import certificate
from paligemma_lib.captioner.certificate import certify
from paligemma_lib.checkpoint import adapters
from paligemma_lib.checkpoint.adapters.merge_comparison import compare_merged
from paligemma_lib.checkpoint.adapters.merging import combine, merge
from paligemma_lib.testing import tiny_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    pg.checkpoint.save_params(folder / "base.npz", cases.random_params())
    (folder / "tokenizer.model").write_bytes(tiny_tokenizer().serialized())
    arrays = adapter_cases.random_adapters(targets=["attention"], dora=True)
    adapters.write_adapter(folder / "birds", arrays, base="base.npz", config=cases.CONFIG)
    cases.write_images(folder / "images", ["a.png", "b.png"])
    return folder


@pytest.fixture(scope="module")
def combination(made):
    return combine(made / "base.npz", [(made / "birds", 1.0)])


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(certificate, "_TOKENS", 6)


def certified(made, combination, target):
    source = pg.data.from_image_files([str(made / "images")])
    return certify(made / "base.npz", combination, target, source)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_it_holds_for_what_was_merged(made, combination, tmp_path, dtype):
    merge(made / "base.npz", combination, tmp_path / "out.npz", dtype=dtype)
    found = certified(made, combination, tmp_path / "out.npz")
    assert found.holds
    assert found.weights.dtypes == (dtype,)
    assert (found.weights.rounding == 0) == (dtype == "float32")
    assert found.adapters.logits > found.bound.logits > found.found.logits
    assert found.adapters.divergence > 10 * found.bound.divergence
    assert [name for name, _, _ in found.captions] == ["a.png", "b.png"]
    assert f"The file is in {dtype}; " in str(found)


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
@pytest.mark.parametrize("dtype", [None, "float32", "float16", "bfloat16"])
def test_weights_are_compared_from_any_dtype_to_any(made, tmp_path, stored, dtype):
    pg.checkpoint.save_params(tmp_path / "base.npz", cases.random_params(), stored)
    mine = combine(tmp_path / "base.npz", [(made / "birds", 1.0)])
    merge(tmp_path / "base.npz", mine, tmp_path / "out.npz", dtype=dtype)
    found = compare_merged(tmp_path / "base.npz", mine, tmp_path / "out.npz")
    assert found.equal == found.values
    assert found.dtypes == (dtype or stored,)
    epsilon = {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8}[dtype or stored]
    assert epsilon / 20 <= found.rounding <= epsilon


def test_it_does_not_hold_for_the_base_alone(made, combination):
    found = certified(made, combination, made / "base.npz")
    assert not found.holds
    assert found.found == found.adapters
    hostile = dataclasses.replace(found, captions=[("a\x1b[2J.png", "a dog", "a cat")])
    assert r"a\x1b[2J.png: 'a dog' with" in str(hostile)
    assert found.weights.equal < found.weights.values


def test_one_wrong_bit_is_seen(made, combination, tmp_path):
    merge(made / "base.npz", combination, tmp_path / "out.npz")
    params = pg.checkpoint.load_params(tmp_path / "out.npz", cases.CONFIG)
    scale = np.array(params["llm"]["final_norm"]["scale"])
    scale[3] = np.nextafter(scale[3], np.float32(9))
    params["llm"]["final_norm"]["scale"] = scale
    pg.checkpoint.save_params(tmp_path / "wrong.npz", params)
    found = certified(made, combination, tmp_path / "wrong.npz")
    assert found.weights.equal == found.weights.values - 1
    assert not found.holds


def test_a_setting_that_the_format_loses_is_seen(made, combination, tmp_path, monkeypatch):
    """A soft cap of a folder's config.json, say, which an .npz file cannot hold."""
    merge(made / "base.npz", combination, tmp_path / "out.npz")
    language = dataclasses.replace(cases.CONFIG.language, query_scale=0.3)
    other = dataclasses.replace(cases.CONFIG, language=language)
    real = pg.captioner.model_files.read_config
    monkeypatch.setattr(
        pg.captioner.model_files,
        "read_config",
        lambda path: other if "base" in str(path) else real(path),
    )
    found = certified(made, combination, tmp_path / "out.npz")
    assert found.weights.equal == found.weights.values
    assert not found.holds


def test_an_adapter_that_is_lost_in_rounding_is_not_certified(made, combination, tmp_path):
    merge(made / "base.npz", combination, tmp_path / "out.npz", dtype="bfloat16")
    found = certified(made, combination, tmp_path / "out.npz")
    weak = dataclasses.replace(
        found,
        found=dataclasses.replace(found.found, divergence=5e-4),
        adapters=dataclasses.replace(found.adapters, divergence=6e-4),
    )
    assert found.holds and not weak.holds
    assert weak.bound.divergence == 1e-4


def test_differing_captions_are_listed(made, combination, tmp_path):
    merge(made / "base.npz", combination, tmp_path / "out.npz")
    found = certified(made, combination, tmp_path / "out.npz")
    other = dataclasses.replace(found, captions=[("a.png", "a dog", "a cat")])
    assert "a.png: 'a dog' with the adapters, 'a cat' from the file" in str(other)
    assert "0 of 1" in str(other)
