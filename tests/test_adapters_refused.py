"""What is not understood in an adapter's folder is refused, and all of it is told at once."""

import json
import shutil

import adapter_cases as cases
import model_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.checkpoint import adapters
from paligemma_lib.checkpoint.adapters.adapter_folder import ADAPTER_MODEL
from paligemma_lib.checkpoint.adapters.peft_settings import (
    _NEUTRAL,
    _USED,
    ADAPTER_CONFIG,
    read_settings,
)
from paligemma_lib.checkpoint.huggingface.format import header_bytes

safetensors = pytest.importorskip("safetensors.numpy", reason="needs safetensors")

CONFIG = cases.CONFIG


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "birds"
    arrays = cases.random_adapters(targets=["attention", "projector"], dora=True)
    return adapters.write_adapter(folder, arrays, base="nano", config=CONFIG)


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "birds")


def changed(folder, **fields):
    path = folder / ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def tensors(folder, change):
    stored = safetensors.load_file(folder / ADAPTER_MODEL)
    change(stored)
    safetensors.save_file(stored, folder / ADAPTER_MODEL)


def refusal(folder, config=CONFIG):
    with pytest.raises(ValueError) as error:
        adapters.read_adapter(folder, config)
    return str(error.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', expected 'LORA'"),
        ({"r": 0}, "r=0, expected a whole number from 1"),
        ({"r": True}, "r=True"),
        ({"r": 10**30}, "r=1"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan"),
        ({"lora_alpha": "16"}, "lora_alpha='16'"),
        ({"lora_alpha": 1e300}, "lora_alpha=1e"),
        ({"use_dora": "yes"}, "use_dora is 'yes', expected true or false"),
        ({"target_modules": [3]}, "target_modules is"),
        ({"target_modules": ["q_proj"] * 5000}, "5,000 items in a list, expected at most 4,096"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern"),
        ({"rank_pattern": {"(?<!x)q_proj": 4}}, "is not understood"),
        ({"alpha_pattern": {"q_proj": None}}, "alpha_pattern"),
        ({"layers_to_transform": [-1]}, "layers_to_transform=-1"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path is 3"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save is ['embed_tokens'], which"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base model"),
        ({"init_lora_weights": "loftq"}, "path_initial_model_for_weight_conversion"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"something_of_2030": 1}, "something_of_2030 is 1, which is not understood"),
    ],
)
def test_settings_that_are_wrong_or_unknown_are_refused(folder, fields, told):
    assert told in refusal(changed(folder, **fields))


def test_everything_unknown_is_told_at_once(folder):
    told = refusal(changed(folder, bias="all", modules_to_save=["x"], init_lora_weights="olora"))
    assert all(name in told for name in ("bias", "modules_to_save", "init_lora_weights"))
    assert "merge_and_unload" in told


@pytest.mark.parametrize(
    "fields",
    [
        {"init_lora_weights": "gaussian", "revision": "main", "lora_dropout": 0.1},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"fan_in_fan_out": True, "task_type": "CAUSAL_LM", "megatron_core": "megatron.core"},
        {"layer_replication": None, "loftq_config": {}, "use_qalora": False, "arrow_config": None},
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "linear"],
         "exclude_modules": r".*vision_tower.*"},
        {"target_modules": r"^(?!.*vision).*(q_proj|k_proj|v_proj|o_proj|linear)$"},
    ],
)  # fmt: skip
def test_settings_that_change_nothing_are_read(folder, made, fields):
    found = adapters.read_adapter(changed(folder, **fields), CONFIG)
    cases.assert_equal(found, adapters.read_adapter(made, CONFIG))


def test_another_base_is_told_with_all_differences(folder):
    other = model_cases.tiny_config(2)
    wide = cases.random_adapters(other, targets=["llm"])
    theirs = adapters.write_adapter(folder / "other", wide, base="google/x", config=other)
    told = refusal(theirs)
    assert "of another shape" in told and "k_proj.lora_B.weight [32, 3], expected [16, 3]" in told
    assert "It was made for google/x" in told


def test_what_is_missing_and_unexpected_is_told_at_once(folder):
    stem = "base_model.model.model.language_model.layers"

    def change(stored):
        del stored[f"{stem}.0.self_attn.q_proj.lora_B.weight"]
        del stored[f"{stem}.1.self_attn.q_proj.lora_magnitude_vector"]
        stored[f"{stem}.7.self_attn.q_proj.lora_A.weight"] = np.zeros((3, 64), np.float32)
        stored["base_model.model.lm_head.lora_A.weight"] = np.zeros((3, 64), np.float32)
        stored[f"{stem}.2.self_attn.q_proj.lora_A.weight"] = np.zeros((3, 64), np.int32)

    tensors(folder, change)
    told = refusal(folder)
    assert "2 missing" in told and "2 unexpected" in told and "1 of another dtype" in told
    assert "train without lm_head" in told


def test_a_rank_that_differs_from_the_settings_is_told(folder):
    assert "lora_A.weight [3, 64], expected [2, 64]" in refusal(changed(folder, r=2))


def test_a_rank_above_the_smaller_side_is_refused(tmp_path):
    arrays = cases.random_adapters(targets=["llm/k_proj"], rank=17)
    folder = adapters.write_adapter(tmp_path / "birds", arrays, base="nano", config=CONFIG)
    assert "k_proj is 64 x 16, and its rank 17" in refusal(folder)


def test_an_adapter_without_dora_has_no_magnitudes(folder):
    assert "lora_magnitude_vector" in refusal(changed(folder, use_dora=False))


def test_values_that_are_no_numbers_are_refused(folder):
    tensors(folder, lambda stored: next(iter(stored.values())).fill(np.inf))
    assert "NaN or infinite" in refusal(folder)


def test_a_pickle_is_not_read(folder):
    (folder / ADAPTER_MODEL).rename(folder / "adapter_model.bin")
    assert "is a pickle" in refusal(folder)


@pytest.mark.parametrize("size", [0, 5, 100, -100])
def test_a_damaged_file_is_told(folder, size):
    data = (folder / ADAPTER_MODEL).read_bytes()
    (folder / ADAPTER_MODEL).write_bytes(data[:size])
    assert "not a complete safetensors file" in refusal(folder)


def test_a_file_that_promises_more_than_it_holds_takes_no_memory(folder):
    header = header_bytes({"x": ((1 << 40,), np.dtype(np.float32))})
    (folder / ADAPTER_MODEL).write_bytes(header)
    assert "not a complete safetensors file" in refusal(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"r": 1, "r": 2}', "null", "\x00" * 10])
def test_settings_that_are_no_json_object_are_told(folder, text):
    (folder / ADAPTER_CONFIG).write_text(text)
    assert "does not describe an adapter" in refusal(folder)


def test_what_is_absent_is_told(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="no such folder on this machine"):
        adapters.read_adapter(tmp_path / "nowhere", CONFIG)
    with pytest.raises(ValueError, match="not the folder of an adapter"):
        adapters.read_adapter(tmp_path, CONFIG)
    (folder / ADAPTER_MODEL).unlink()
    with pytest.raises(FileNotFoundError, match="lacks adapter_model.safetensors"):
        adapters.read_adapter(folder, CONFIG)


def test_an_adapter_without_a_base_says_how_to_load_it(folder):
    with pytest.raises(ValueError, match="does not name the base model"):
        adapters.base_of(changed(folder, base_model_name_or_path=None))


FIELDS = sorted(_USED | _NEUTRAL | {"bias", "modules_to_save", "lora_bias", "x"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES))
@settings(max_examples=200, deadline=None)
def test_settings_of_any_kind_are_read_or_refused(tmp_path_factory, fields):
    folder = tmp_path_factory.mktemp("adapters")
    (folder / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "LORA"} | fields))
    modules = ["model.language_model.layers.0.self_attn.q_proj"]
    try:
        found = read_settings(folder)
        assert found.ranks(modules)[modules[0]] >= 1
        assert np.isfinite(found.alphas(modules)[modules[0]])
        assert found.targeted(modules) in (None, set(), set(modules))
    except ValueError as error:
        assert str(error)


def test_an_expression_cannot_keep_the_reader_busy(folder):
    slow = "(" * 20 + "a*" + ")*" * 20 + "b"
    assert "of another shape" in refusal(changed(folder, rank_pattern={f"{slow}|q_proj": 2}))
