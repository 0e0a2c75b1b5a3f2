"""Tests of checkpoint/huggingface/writer.py and settings.py: what is exported, what is refused."""

import dataclasses
import json
import os
from collections import namedtuple

import ml_dtypes
import model_cases as cases
import numpy as np
import pytest
from huggingface_cases import assert_identical, exported, load_file, random_params, read_all

from paligemma_lib import model
from paligemma_lib.checkpoint import huggingface
from paligemma_lib.checkpoint.huggingface import settings, writer
from paligemma_lib.checkpoint.huggingface.folder import WEIGHTS


def test_settings_switch_off_what_defaults_get_wrong():
    text = settings.model_settings(model.variants.paligemma2_3b(), "bfloat16")["text_config"]
    assert text["final_logit_softcapping"] is None
    assert text["attn_logit_softcapping"] == 50.0
    assert text["layer_types"] == ["full_attention"] * 26
    assert text["sliding_window"] >= text["max_position_embeddings"]
    assert text["query_pre_attn_scalar"] == 256
    assert text["vocab_size"] == 257_216
    assert settings.model_settings(model.variants.paligemma_3b(), "float32")[
        "image_token_index"
    ] == (257_152)
    largest = settings.model_settings(model.variants.paligemma2_28b(), "bfloat16")["text_config"]
    assert largest["query_pre_attn_scalar"] == 144


@pytest.mark.parametrize(
    ("version", "change", "message"),
    [
        (1, {"attention_softcap": 50.0}, "attention_softcap=50.0 with post_norms=False"),
        (1, {"final_softcap": 30.0}, "final_softcap=30.0 with post_norms=False"),
        (1, {"query_scale": 0.5}, "query_scale=0.5 with post_norms=False"),
        (2, {"query_scale": 0.31}, "query_scale=0.31 is not 1 / sqrt"),
    ],
)
def test_a_model_that_transformers_lacks_is_refused(tmp_path, version, change, message):
    config = cases.tiny_config(version)
    config = dataclasses.replace(config, language=dataclasses.replace(config.language, **change))
    with pytest.raises(ValueError, match=message):
        huggingface.export(cases.random_params(config), config, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_wrong_parameters_are_listed_together(tmp_path):
    config = cases.tiny_config(1)
    params = cases.flatten(random_params(config))
    del params["img/head/bias"]
    params["llm/extra"] = np.zeros(1, np.float32)
    params["llm/final_norm/scale"] = np.zeros(63, np.float32)
    params["img/embedding/bias"] = np.zeros(48, np.float64)
    with pytest.raises(ValueError) as error:
        huggingface.export(cases.unflatten(params), config, tmp_path / "model")
    for part in (
        "missing: img/head/bias",
        "unexpected: llm/extra",
        "llm/final_norm/scale [63], expected [64]",
        "1 of another dtype: img/embedding/bias float64",
    ):
        assert part in str(error.value)


def test_a_type_that_cannot_be_written_says_what_can(tmp_path):
    config = cases.tiny_config(1)
    with pytest.raises(ValueError, match="dtype='int8', expected one of .*bfloat16"):
        huggingface.export(random_params(config), config, tmp_path / "model", dtype="int8")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_too_large_for_float16_are_an_error(tmp_path, dtype):
    config = cases.tiny_config(1)
    params = random_params(config, dtype)
    params["llm"]["layers"]["mlp"]["linear"][1, 2, 3] = 1e6
    with pytest.raises(ValueError, match="llm/layers/mlp/linear has values up to .*bfloat16"):
        huggingface.export(params, config, tmp_path / "model", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_stays_as_it_is(tmp_path):
    config, params, folder = exported(tmp_path)
    with pytest.raises(FileExistsError, match="exists: remove it"):
        huggingface.export(random_params(config), config, folder, dtype="float16")
    assert_identical(read_all(folder, config), params)


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        exported(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_noticed_before_writing(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")(1000)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="the disk has 1,000 bytes free. Free disk space"):
        exported(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["gs://bucket/model", "absent/model"])
def test_a_place_that_cannot_be_written(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    config = cases.tiny_config(1)
    with pytest.raises((ValueError, FileNotFoundError), match="not a local path|not a folder"):
        huggingface.export(random_params(config), config, place)
    assert not list(tmp_path.iterdir())


def test_the_tokenizer_is_copied(tmp_path):
    config = cases.tiny_config(1)
    params = random_params(config)
    tokenizer = tmp_path / "some.model"
    tokenizer.write_bytes(b"parts")
    folder = huggingface.export(params, config, tmp_path / "model", tokenizer=tokenizer)
    assert (folder / "tokenizer.model").read_bytes() == b"parts"
    added = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert added["512"]["content"] == "<image>"
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        huggingface.export(params, config, tmp_path / "other", tokenizer=tmp_path / "absent")


def test_bfloat16_is_written_as_such(tmp_path):
    _, _, folder = exported(tmp_path, dtype="bfloat16")
    stored = load_file(folder / WEIGHTS)
    assert {values.dtype for values in stored.values()} == {np.dtype(ml_dtypes.bfloat16)}
