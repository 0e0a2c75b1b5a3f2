"""Tests of checkpoint/huggingface: what is wrong with a folder is told, whatever it is."""

import contextlib
import dataclasses
import json
import math

import model_cases as cases
import numpy as np
import pytest
from huggingface_cases import assert_identical, exported, read_all, rewrite, save_file
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib.checkpoint import huggingface
from paligemma_lib.checkpoint.huggingface import format, writer
from paligemma_lib.checkpoint.huggingface.folder import INDEX, WEIGHTS


def test_all_that_is_wrong_is_in_one_error(tmp_path):
    config, _, folder = exported(tmp_path)
    layer = "language_model.model.layers.1."

    def change(stored):
        del stored[layer + "mlp.up_proj.weight"]
        stored["adapter.weight"] = np.zeros(3, np.float32)
        stored[layer + "mlp.gate_proj.weight"] = np.zeros((64, 128), np.float32)
        stored[layer + "input_layernorm.weight"] = np.zeros(64, np.int8)
        table = stored["language_model.model.embed_tokens.weight"]
        stored["language_model.model.embed_tokens.weight"] = table[:500]

    rewrite(folder, change)
    with pytest.raises(ValueError) as error:
        huggingface.SafetensorsReader(folder, config)
    for part in (
        f"  1 missing: {layer}mlp.up_proj.weight\n",
        "  1 unexpected: adapter.weight\n",
        f"{layer}mlp.gate_proj.weight [64, 128], expected [128, 64]",
        f"  1 of another dtype: {layer}input_layernorm.weight I8\n",
        "embed_tokens.weight [500, 64], expected [512, 64] or [576, 64]",
    ):
        assert part in str(error.value)


def test_the_wrong_version_is_an_error(tmp_path):
    _, _, folder = exported(tmp_path, version=1)
    with pytest.raises(ValueError, match="missing: .*pre_feedforward_layernorm"):
        huggingface.SafetensorsReader(folder, cases.tiny_config(2))


def test_another_resolution_is_given_as_it_is(tmp_path):
    config, params, folder = exported(tmp_path)
    vision = dataclasses.replace(config.vision, image_size=64)
    larger = dataclasses.replace(config, vision=vision)
    assert_identical(read_all(folder, larger), params)


@pytest.mark.parametrize("size", [0, 5, 500, -1])
def test_a_truncated_file_is_an_error(tmp_path, size):
    config, _, folder = exported(tmp_path)
    data = (folder / WEIGHTS).read_bytes()[:size]
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match=f"{len(data):,} bytes .* not a complete safetensors file"):
        huggingface.SafetensorsReader(folder, config)


def test_pickles_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match="pytorch_model.bin are pickles.*save_pretrained"):
        huggingface.SafetensorsReader(tmp_path, cases.tiny_config(1))


@pytest.mark.parametrize("place", ["absent", "gs://bucket/model", "."])
def test_no_checkpoint_there(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="Download the checkpoint"):
        huggingface.SafetensorsReader(place, cases.tiny_config(1))


@pytest.mark.parametrize(
    "file",
    [
        "../model.safetensors",
        "/model.safetensors",
        "a\\b.safetensors",
        "x.bin",
        7,
        ["a"],
        "C:a.safetensors",
    ],
)
def test_an_index_cannot_lead_out_of_the_folder(tmp_path, file):
    config, _, folder = exported(tmp_path)
    (folder / WEIGHTS).rename(tmp_path / WEIGHTS)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(ValueError, match="bare \\*.safetensors name|expected JSON"):
        huggingface.SafetensorsReader(folder, config)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', "[" * 100_000])
def test_a_bad_index_is_an_error(tmp_path, text):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ValueError, match="expected JSON with a weight_map"):
        huggingface.SafetensorsReader(tmp_path, cases.tiny_config(1))


def test_an_index_of_no_files_is_an_error(tmp_path):
    (tmp_path / INDEX).write_text('{"weight_map": {}}')
    with pytest.raises(ValueError, match="names 0 files"):
        huggingface.SafetensorsReader(tmp_path, cases.tiny_config(1))


def test_a_huge_index_is_not_read(tmp_path):
    with (tmp_path / INDEX).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="1099511627776 bytes, expected at most"):
        huggingface.SafetensorsReader(tmp_path, cases.tiny_config(1))


def test_files_missing_from_the_index_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MAX_FILE_BYTES", 200_000)
    config, _, folder = exported(tmp_path)
    files = sorted(folder.glob("*.safetensors"))
    for path in files[1:3]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{files[1].name}; {files[2].name}. Download"):
        huggingface.SafetensorsReader(folder, config)


def test_a_tensor_in_two_files_is_an_error(tmp_path):
    config, _, folder = exported(tmp_path)
    both = {"a": WEIGHTS, "b": "b.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": both}))
    name = "model.language_model.norm.weight"
    save_file({name: np.zeros(64, np.float32)}, folder / "b.safetensors")
    with pytest.raises(ValueError, match="are the same tensor"):
        huggingface.SafetensorsReader(folder, config)


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "tensor",
    [
        {**TENSOR, "shape": [1 << 40], "data_offsets": [0, 1 << 42]},
        {**TENSOR, "shape": [1 << 40]},
        {**TENSOR, "shape": [-1, -2]},
        {**TENSOR, "shape": ["2"]},
        {**TENSOR, "shape": [2.0]},
        {**TENSOR, "shape": 2},
        {**TENSOR, "data_offsets": [8, 16]},
        {**TENSOR, "data_offsets": [-8, 0]},
        {**TENSOR, "data_offsets": [0]},
        {"dtype": "F32"},
        [],
    ],
)
def test_a_header_that_does_not_agree_with_the_file(tmp_path, tensor):
    text = json.dumps({"a": tensor}).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(8)
    (tmp_path / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        huggingface.SafetensorsReader(tmp_path, cases.tiny_config(1))


@given(st.binary(max_size=60), st.integers(0, 80))
def test_damaged_headers_are_value_errors(tmp_path_factory, junk, place):
    text = json.dumps({"a": TENSOR}).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(8)
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(data[:place] + junk + data[place + len(junk) :])
    with contextlib.suppress(ValueError):
        for entry in format.read_header(path).values():
            assert entry.dtype is None or entry.start + math.prod(entry.shape) <= len(data) + 60
