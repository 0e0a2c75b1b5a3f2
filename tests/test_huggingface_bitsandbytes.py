"""Folders that bitsandbytes has quantised: undone as it undoes them, or refused with what is wrong.

`bitsandbytes_golden.safetensors` holds weights that bitsandbytes 0.50.2 has quantised on a CPU, and
what it undoes each to: `quantize_4bit` of nf4 and fp4, with `compress_statistics` and without, and
`int8_vectorwise_quant`, of normal values times 0.05.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import model_cases as cases
import numpy as np
import pytest
from huggingface_cases import exported, load_file, rewrite

from paligemma_lib.checkpoint import load_params
from paligemma_lib.checkpoint.huggingface.bitsandbytes import take_quantised
from paligemma_lib.checkpoint.huggingface.config_json import CONFIG
from paligemma_lib.checkpoint.huggingface.folder import WEIGHTS, Stored
from paligemma_lib.checkpoint.huggingface.format import read_header
from paligemma_lib.quantized.array_type import NF4

GOLDEN = Path(__file__).parent / "bitsandbytes_golden.safetensors"
WEIGHT = "language_model.model.layers.1.mlp.down_proj.weight"  # [64, 128] in the tiny model
EIGHT = "language_model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("name", ["nf4", "nf4_nested", "fp4", "fp4_nested", "int8"])
def test_values_are_those_of_bitsandbytes_bit_for_bit(name):
    with GOLDEN.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as threads:
        entries = read_header(GOLDEN)
        expected = entries.pop(f"{name}.undone")
        stored = {
            each: Stored(file, each, entry)
            for each, entry in entries.items()
            if each.startswith(f"{name}.")
        }
        found = take_quantised(stored, "golden")
        values = found[f"{name}.weight"].undo(threads)
        file.seek(expected.start)
        assert values.tobytes() == file.read(expected.num_bytes)
        assert list(stored) == [f"{name}.weight"]
        assert (values.shape, values.dtype) == (expected.shape, expected.dtype)


def in_nf4(values):
    """The published algorithm, one value at a time: the bytes, and each block's magnitude."""
    flat = values.astype(np.float32).reshape(-1, 64)
    absmax = np.abs(flat).max(axis=1)
    index = np.abs(flat[..., None] / absmax[:, None, None] - np.array(NF4)).argmin(axis=-1)
    index = index.reshape(-1)
    return (index[::2] * 16 + index[1::2]).astype(np.uint8)[:, None], absmax


def quantise(stored):
    """Changes one weight of a folder to nf4, and another to int8."""
    shape = stored[WEIGHT].shape
    packed, absmax = in_nf4(stored[WEIGHT])
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(shape)}
    stored |= {
        WEIGHT: packed,
        f"{WEIGHT}.absmax": absmax,
        f"{WEIGHT}.quant_map": np.array(NF4, np.float32),
        f"{WEIGHT}.quant_state.bitsandbytes__nf4": np.frombuffer(
            json.dumps(state).encode(), np.uint8
        ),
    }
    weight = stored[f"{EIGHT}.weight"]
    scale = np.abs(weight).max(axis=1)
    stored |= {
        f"{EIGHT}.weight": np.round(weight / scale[:, None] * 127).astype(np.int8),
        f"{EIGHT}.SCB": scale,
        f"{EIGHT}.weight_format": np.array(0, np.uint8),
    }
    return stored


@pytest.fixture
def folder(tmp_path):
    """A folder in which two weights are quantised."""
    _, _, folder = exported(tmp_path)
    content = json.loads((folder / CONFIG).read_text())
    content["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / CONFIG).write_text(json.dumps(content))
    rewrite(folder, quantise)
    return folder


def test_a_model_is_read_with_the_weights_undone(folder, tmp_path):
    (tmp_path / "plain").mkdir()
    config, expected, plain = exported(tmp_path / "plain")
    before, found = load_file(plain / WEIGHTS), cases.flatten(load_params(folder, config))
    for name, values in expected.items():
        if name not in ("llm/layers/mlp/linear", "llm/layers/attn/q_einsum/w"):
            np.testing.assert_array_equal(found[name], values, name)
    packed, absmax = in_nf4(before[WEIGHT])
    index = np.stack([packed // 16, packed % 16], axis=-1).reshape(-1, 64)
    undone = (np.array(NF4, np.float32)[index] * absmax[:, None]).reshape(before[WEIGHT].shape)
    np.testing.assert_array_equal(found["llm/layers/mlp/linear"][1], undone.T)
    np.testing.assert_array_equal(
        found["llm/layers/mlp/linear"][0], expected["llm/layers/mlp/linear"][0]
    )
    query = np.asarray(found["llm/layers/attn/q_einsum/w"])
    np.testing.assert_allclose(query, expected["llm/layers/attn/q_einsum/w"], atol=3e-3)
    assert not np.array_equal(query[0], expected["llm/layers/attn/q_einsum/w"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{WEIGHT}.absmax": None}, "it lacks 'language_model.*absmax'"),
        ({f"{WEIGHT}.absmax": np.ones(3, np.float32)}, r"F32 \[3\], expected 128 of F32"),
        ({f"{WEIGHT}.quant_map": np.ones(16, np.uint8)}, r"U8 \[16\], expected 16 of F32"),
        ({f"{EIGHT}.SCB": np.ones(3, np.float32)}, r"F32 \[3\], expected 64 of F32"),
        ({f"{EIGHT}.weight": None}, "it lacks 'language_model.*q_proj.weight'"),
        ({WEIGHT: np.ones((7, 1), np.uint8)}, r"U8 \[7, 1\], expected 4,096 of U8"),
    ],
)
def test_what_does_not_fit_together_is_told(folder, change, message):
    def apply(stored):
        return {k: v for k, v in (stored | change).items() if v is not None}

    rewrite(folder, apply)
    with pytest.raises(
        ValueError, match=f"quantised by bitsandbytes, but cannot be undone.*{message}"
    ):
        load_params(folder, cases.tiny_config(1))


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": [1 << 62, 1 << 62]},
        {"shape": "all"},
        {"blocksize": 0},
        {"blocksize": 10**9},
        {"dtype": "float64"},
        {"nested_blocksize": 256, "nested_offset": float("nan")},
        None,
    ],
)
def test_a_state_is_not_trusted(folder, fields):
    def apply(stored):
        name = f"{WEIGHT}.quant_state.bitsandbytes__nf4"
        state = json.loads(stored[name].tobytes())
        text = "[1, 2" if fields is None else json.dumps(state | fields)
        return stored | {name: np.frombuffer(text.encode(), np.uint8)}

    rewrite(folder, apply)
    with pytest.raises(ValueError, match="cannot be undone"):
        load_params(folder, cases.tiny_config(1))
