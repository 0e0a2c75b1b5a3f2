"""Folders of safetensors, in and out."""

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import tracemalloc
from collections import namedtuple

import jax
import ml_dtypes
import model_cases as cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib import model
from paligemma_lib.checkpoint import huggingface
from paligemma_lib.checkpoint.huggingface import format, settings, tensors, writer
from paligemma_lib.checkpoint.huggingface.folder import INDEX, WEIGHTS
from paligemma_lib.checkpoint.matching import expected_shapes

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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("version", cases.VERSIONS)
def test_npz_to_safetensors_to_npz_is_bit_exact(tmp_path, version, dtype):
    config = cases.tiny_config(version)
    np.savez(tmp_path / "before.npz", **cases.flatten(random_params(config, dtype)))
    with np.load(tmp_path / "before.npz") as file:
        before = {name: file[name].view(dtype) for name in file.files}  # bfloat16 reads as void
    folder = huggingface.export(cases.unflatten(before), config, tmp_path / "model")
    np.savez(tmp_path / "after.npz", **read_all(folder, config))
    with np.load(tmp_path / "after.npz") as file:
        after = {name: file[name].view(dtype) for name in file.files}
    assert_identical(after, before)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("version", cases.VERSIONS)
def test_large_tensors_are_exact_too(tmp_path, monkeypatch, version, dtype):
    """Which are written and read in strips and blocks, here made small instead."""
    monkeypatch.setattr(tensors, "_ROWS", 5)
    monkeypatch.setattr(tensors, "_BLOCK_BYTES", 300)
    config, params, folder = exported(tmp_path, version, dtype)
    assert_identical(read_all(folder, config), params)
    monkeypatch.undo()
    assert_identical(read_all(folder, config), params)


def test_types_may_differ_between_parameters(tmp_path):
    config = cases.tiny_config(2)
    params = cases.flatten(random_params(config, "bfloat16"))
    name = "llm/layers/attn/q_einsum/w"
    params[name] = params[name].astype(np.float32)
    folder = huggingface.export(cases.unflatten(params), config, tmp_path / "model")
    assert_identical(read_all(folder, config), params)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


def test_export_casts_and_takes_jax_arrays(tmp_path):
    config = cases.tiny_config(1)
    params = jax.tree.map(jax.numpy.asarray, random_params(config))
    folder = huggingface.export(params, config, tmp_path / "model", dtype="bfloat16")
    expected = {k: np.asarray(v).astype("bfloat16") for k, v in cases.flatten(params).items()}
    assert_identical(read_all(folder, config), expected)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_parameters_may_be_in_pieces(tmp_path):
    """As training holds them: frozen layers, then those that train."""
    config = cases.tiny_config(2)
    params = cases.flatten(random_params(config))
    pieces = {
        name: (values[:2], jax.numpy.asarray(values[2:])) if name.startswith("llm/l") else values
        for name, values in params.items()
    }
    folder = huggingface.export(cases.unflatten(pieces), config, tmp_path / "model")
    assert_identical(read_all(folder, config), params)


def test_layout_is_pytorchs(tmp_path):
    _, params, folder = exported(tmp_path, version=2)
    stored = load_file(folder / WEIGHTS)
    vision, layer = "vision_tower.vision_model.", "language_model.model.layers.2."
    head, h, d, f = 1, 5, 33, 100
    assert (
        stored[layer + "self_attn.q_proj.weight"][head * 16 + h, d]
        == params["llm/layers/attn/q_einsum/w"][2, head, d, h]
    )
    assert (
        stored[layer + "self_attn.v_proj.weight"][head * 16 + h, d]
        == params["llm/layers/attn/kv_einsum/w"][2, 1, head, d, h]
    )
    assert (
        stored[layer + "self_attn.o_proj.weight"][d, head * 16 + h]
        == params["llm/layers/attn/attn_vec_einsum/w"][2, head, h, d]
    )
    assert (
        stored[layer + "mlp.up_proj.weight"][f, d]
        == params["llm/layers/mlp/gating_einsum"][2, 1, d, f]
    )
    assert (
        stored[layer + "pre_feedforward_layernorm.weight"][d]
        == params["llm/layers/pre_ffw_norm/scale"][2, d]
    )
    assert (
        stored[vision + "embeddings.patch_embedding.weight"][40, 2, 3, 7]
        == params["img/embedding/kernel"][3, 7, 2, 40]
    )


@pytest.mark.parametrize(
    "config",
    [
        model.config.paligemma_3b(448),
        model.config.paligemma2_3b(),
        model.config.paligemma2_10b(),
        model.config.paligemma2_28b(),
        model.config.nano(),
    ],
    ids=["3b", "2-3b", "2-10b", "2-28b", "nano"],
)
def test_tensors_cover_every_parameter_once(config):
    shapes = expected_shapes(config)
    covered = dict.fromkeys(shapes, 0)
    all_tensors = tensors.all_tensors(config)
    for tensor in all_tensors:
        assert math.prod(tensor.stored_shape) == math.prod(tensor.shape)
        covered[tensor.parameter] += math.prod(tensor.shape)
    assert covered == {name: math.prod(shape) for name, shape in shapes.items()}
    assert len({tensor.name for tensor in all_tensors}) == len(all_tensors)
    assert len({(t.parameter, t.index) for t in all_tensors}) == len(all_tensors)


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_padding_rows_have_the_mean_logit(tmp_path, version):
    config, params, folder = exported(tmp_path, version)
    table = load_file(folder / WEIGHTS)["language_model.model.embed_tokens.weight"]
    size = config.language.vocab_size
    assert len(table) == size + 64
    x = np.random.default_rng(0).normal(size=table.shape[1])
    np.testing.assert_allclose(table[size:] @ x, np.mean(table[:size] @ x), rtol=1e-4)
    assert_identical({"": table[:size]}, {"": params[tensors.EMBEDDING]})


NAMINGS = {
    "newer": [("vision_tower.vision_model.", "vision_tower.")],
    "prefixed": [
        ("vision_tower.vision_model.", "model.vision_tower."),
        ("language_model.model.", "model.language_model."),
        ("multi_modal", "model.multi_modal"),
    ],
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("lm_head", [None, "lm_head.weight", "language_model.lm_head.weight"])
@pytest.mark.parametrize("padded", [True, False])
def test_other_namings_are_read(tmp_path, naming, lm_head, padded):
    config, params, folder = exported(tmp_path)

    def change(stored):
        table = stored["language_model.model.embed_tokens.weight"]
        stored["language_model.model.embed_tokens.weight"] = table if padded else table[:512]
        renamed = {} if lm_head is None else {lm_head: table}
        for name, values in stored.items():
            for old, new in NAMINGS[naming]:
                name = name.replace(old, new)
            renamed[name] = values
        return renamed

    rewrite(folder, change)
    assert_identical(read_all(folder, config), params)


def test_an_output_layer_that_is_not_the_embedding_is_refused(tmp_path):
    config, _, folder = exported(tmp_path)

    def change(stored):
        stored["lm_head.weight"] = stored["language_model.model.embed_tokens.weight"].copy()
        stored["lm_head.weight"][300, 7] += 1

    rewrite(folder, change)
    with pytest.raises(ValueError, match="lm_head.weight differs from the embedding table"):
        huggingface.SafetensorsReader(folder, config)


def test_several_files_and_their_index(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MAX_FILE_BYTES", 200_000)
    config, params, folder = exported(tmp_path, version=2)
    index = json.loads((folder / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    stored = {name: load_file(folder / name) for name in files}
    assert {name: file for file in files for name in stored[file]} == index["weight_map"]
    sizes = [sum(values.nbytes for values in each.values()) for each in stored.values()]
    assert max(sizes) <= 200_000
    assert sum(sizes) == index["metadata"]["total_size"]
    assert_identical(read_all(folder, config), params)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    config, params, folder = exported(tmp_path_factory.mktemp("slices"), 2, "bfloat16")
    with huggingface.SafetensorsReader(folder, config) as file:
        yield file, params


@given(st.data())
def test_rows_are_rows_of_the_whole(opened, data):
    file, params = opened
    name = data.draw(st.sampled_from(sorted(params)))
    bound = st.none() | st.integers(-4, 600)
    rows = slice(data.draw(bound), data.draw(bound))
    assert_identical({name: file.read(name, rows)}, {name: params[name][rows]})


def test_reading_a_layer_takes_a_layers_memory(tmp_path):
    config = cases.tiny_config(1)
    language = dataclasses.replace(config.language, depth=64, mlp_dim=4096)
    config = dataclasses.replace(config, language=language)
    params = cases.random_params(config)
    folder = huggingface.export(params, config, tmp_path / "model")
    layer = params["llm"]["layers"]["mlp"]["gating_einsum"][0].nbytes
    with huggingface.SafetensorsReader(folder, config) as file:
        assert peak(lambda: file.read("llm/layers/mlp/gating_einsum", slice(9, 10))) < 2.5 * layer
        assert peak(lambda: file.read(tensors.EMBEDDING, slice(0, 9))) < 0.1 * layer


def test_exporting_takes_a_layers_memory(tmp_path):
    config = cases.tiny_config(1)
    language = dataclasses.replace(config.language, depth=64, mlp_dim=4096)
    config = dataclasses.replace(config, language=language)
    params = cases.random_params(config)
    slice_bytes = params["llm"]["layers"]["mlp"]["linear"][0].nbytes
    folders = iter((tmp_path / "first", tmp_path / "second"))
    used = peak(lambda: huggingface.export(params, config, next(folders)))
    assert used < 4 * slice_bytes  # of 192 such slices


def peak(call):
    """Bytes that the second call holds at most; the first compiles and imports."""
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_part_is_read_on_purpose_only(tmp_path):
    config, params, folder = exported(tmp_path)
    vision = [name for name in params if name.startswith("img/")]
    rewrite(folder, lambda stored: {k: v for k, v in stored.items() if "language" not in k})
    expected = {name: params[name] for name in vision}
    assert_identical(read_all(folder, config, vision), expected)
    with pytest.raises(ValueError, match="29 missing: .*language_model.model.embed_tokens"):
        huggingface.SafetensorsReader(folder, config)
    with pytest.raises(ValueError, match="no parameters \\['img/heads'\\]"):
        huggingface.SafetensorsReader(folder, config, ["img/heads"])


def test_all_that_is_wrong_is_in_one_error(tmp_path):
    config, _, folder = exported(tmp_path)
    layer = "language_model.model.layers.1."

    def change(stored):
        del stored[layer + "mlp.up_proj.weight"]
        stored["adapter.weight"] = np.zeros(3, np.float32)
        stored[layer + "mlp.gate_proj.weight"] = np.zeros((64, 128), np.float32)
        stored[layer + "input_layernorm.weight"] = np.zeros(64, np.int8)
        stored[layer + "self_attn.q_proj.weight"] = np.zeros((64, 64), np.float16)
        table = stored["language_model.model.embed_tokens.weight"]
        stored["language_model.model.embed_tokens.weight"] = table[:500]

    rewrite(folder, change)
    with pytest.raises(ValueError) as error:
        huggingface.SafetensorsReader(folder, config)
    for part in (
        f"  1 missing: {layer}mlp.up_proj.weight\n",
        "  1 unexpected: adapter.weight\n",
        f"{layer}mlp.gate_proj.weight [64, 128], expected [128, 64]",
        f"  1 of another type: {layer}input_layernorm.weight I8\n",
        f"{layer}self_attn.q_proj.weight float16, but float32 in an earlier layer",
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
    with pytest.raises(ValueError, match=f"{len(data):,} bytes that are no whole safetensors file"):
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


def test_settings_switch_off_what_defaults_get_wrong():
    text = settings.model_settings(model.config.paligemma2_3b(), "bfloat16")["text_config"]
    assert text["final_logit_softcapping"] is None
    assert text["attn_logit_softcapping"] == 50.0
    assert text["layer_types"] == ["full_attention"] * 26
    assert text["sliding_window"] >= text["max_position_embeddings"]
    assert text["query_pre_attn_scalar"] == 256
    assert text["vocab_size"] == 257_216
    assert settings.model_settings(model.config.paligemma_3b(), "float32")["image_token_index"] == (
        257_152
    )
    largest = settings.model_settings(model.config.paligemma2_28b(), "bfloat16")["text_config"]
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
        "1 of another type: img/embedding/bias float64",
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
    with pytest.raises(OSError, match="the disk has 1,000 left. Make room"):
        exported(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["gs://bucket/model", "absent/model"])
def test_a_place_that_cannot_be_written(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    config = cases.tiny_config(1)
    with pytest.raises((ValueError, FileNotFoundError), match="not on this machine|not a folder"):
        huggingface.export(random_params(config), config, place)
    assert not list(tmp_path.iterdir())


def test_the_tokenizer_is_copied(tmp_path):
    config = cases.tiny_config(1)
    params = random_params(config)
    tokenizer = tmp_path / "some.model"
    tokenizer.write_bytes(b"pieces")
    folder = huggingface.export(params, config, tmp_path / "model", tokenizer=tokenizer)
    assert (folder / "tokenizer.model").read_bytes() == b"pieces"
    added = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert added["512"]["content"] == "<image>"
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        huggingface.export(params, config, tmp_path / "other", tokenizer=tmp_path / "absent")


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
    with pytest.raises(ValueError, match="no whole safetensors file"):
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


def test_bfloat16_is_written_as_such(tmp_path):
    _, _, folder = exported(tmp_path, dtype="bfloat16")
    stored = load_file(folder / WEIGHTS)
    assert {values.dtype for values in stored.values()} == {np.dtype(ml_dtypes.bfloat16)}


PROGRAM = """
import sys
for name in ("tensorflow", "torch", "transformers", "safetensors"):
    sys.modules[name] = None
import paligemma_lib.checkpoint.huggingface
"""


def test_imports_without_tensorflow_torch_and_their_kin():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
