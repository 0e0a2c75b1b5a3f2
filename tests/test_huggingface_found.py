"""Folders as they lie around: other programs' names, types and leftovers; and what is no model."""

import json
import re
import shutil

import ml_dtypes
import model_cases as cases
import numpy as np
import pytest
from huggingface_cases import assert_identical, exported, load_file, read_all, rewrite, save_file

from paligemma_lib.checkpoint import huggingface, load_params, read_config
from paligemma_lib.checkpoint.huggingface import writer
from paligemma_lib.checkpoint.huggingface.config_json import CONFIG
from paligemma_lib.checkpoint.huggingface.folder import INDEX, WEIGHTS
from paligemma_lib.checkpoint.huggingface.refusals import hints
from paligemma_lib.cli import main

TABLE = "language_model.model.embed_tokens.weight"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def refused(folder, capsys):
    """What `show` says of a folder that it refuses."""
    assert main(["show", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert not out and "Traceback" not in err
    return err


# --- A whole file beside an index


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """A model in several files, and the values of a newer one."""
    with monkeypatch.context() as patch:
        patch.setattr(writer, "MAX_FILE_BYTES", 200_000)
        config, _, folder = exported(tmp_path)
    newer = {
        name: values + 1 for name, values in cases.flatten(cases.random_params(config)).items()
    }
    return config, folder, newer


def add_whole(config, folder, newer):
    new = huggingface.export(cases.unflatten(newer), config, folder.parent / "new")
    shutil.copy(new / WEIGHTS, folder / WEIGHTS)


@pytest.mark.parametrize("stale", ["files there", "a file missing", "no index at all"])
def test_a_whole_file_comes_before_an_index(shards, caplog, stale):
    config, folder, newer = shards
    add_whole(config, folder, newer)
    reason = "its [0-9]+ files hold another copy"
    if stale == "a file missing":
        next(folder.glob("model-0*")).unlink()
        reason = "1 of the [0-9]+ files that it names are missing"
    elif stale == "no index at all":
        (folder / INDEX).write_text("[")
        reason = "it is no valid index"
    assert_identical(read_all(folder, config), newer)
    (record,) = caplog.records
    assert re.search(reason, record.getMessage())
    assert f"{folder / WEIGHTS} is read, but not {INDEX}" in record.getMessage()


def test_an_index_that_names_the_whole_file_is_read(tmp_path, caplog):
    config, params, folder = exported(tmp_path)
    stored = load_file(folder / WEIGHTS)
    half = {name: stored.pop(name) for name in sorted(stored)[::2]}
    save_file(stored, folder / WEIGHTS)
    save_file(half, folder / "rest.safetensors")
    names = dict.fromkeys(stored, WEIGHTS) | dict.fromkeys(half, "rest.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    assert_identical(read_all(folder, config), params)
    assert not caplog.records


# --- Names, types, buffers


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.model.{name}",
        lambda name: f"base_model.model.{name}",
        lambda name: (
            "base_model.model.model." + name.replace("language_model.model", "language_model")
        ),
        lambda name: name.replace("language_model.", "language_model._orig_mod."),
    ],
)
def test_prefixes_of_what_wraps_a_model_are_left_out(tmp_path, rename):
    config, params, folder = exported(tmp_path)
    rewrite(folder, lambda stored: {rename(name): values for name, values in stored.items()})
    assert_identical(read_all(folder, config), params)


def test_buffers_are_left_out(tmp_path):
    config, params, folder = exported(tmp_path)

    def add(stored):
        stored["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(
            8, np.float32
        )
        stored["model.language_model.rotary_emb.original_inv_freq"] = np.ones(8, np.float32)
        stored["vision_tower.vision_model.embeddings.position_ids"] = np.arange(16)[None]

    rewrite(folder, add)
    assert_identical(read_all(folder, config), params)
    rewrite(folder, lambda stored: stored.update({"inv_freq_of_mine": np.ones(3, np.float32)}))
    with pytest.raises(ValueError, match="1 unexpected: inv_freq_of_mine"):
        read_all(folder, config)


@pytest.mark.parametrize("other", [np.float16, BFLOAT16])
@pytest.mark.parametrize("first", [np.float32, BFLOAT16])
def test_layers_of_several_types_are_read_in_the_widest(tmp_path, other, first):
    config, _, folder = exported(tmp_path, version=2, dtype=np.dtype(first).name)
    want = read_all(folder, config)

    def cast(stored):
        for name in stored:
            if "layers.1." in name:
                stored[name] = stored[name].astype(other)

    rewrite(folder, cast)
    found = read_all(folder, config)
    widest = first if other == first else np.float32
    for name, values in want.items():
        layered = "layers/" in name or "encoderblock" in name
        assert found[name].dtype == (widest if layered else first), name
        if layered:
            values = values.astype(widest)
            values[1] = values[1].astype(other).astype(widest)
        np.testing.assert_array_equal(found[name], values)
    loaded = cases.flatten(load_params(folder, config, dtype="float32"))
    for name, values in found.items():
        np.testing.assert_array_equal(loaded[name], values.astype(np.float32))


@pytest.mark.parametrize("table", [np.float32, np.float16, BFLOAT16])
@pytest.mark.parametrize("head", [np.float32, np.float16, BFLOAT16])
@pytest.mark.parametrize("differs", [False, True])
def test_an_output_layer_may_be_the_table_in_another_type(tmp_path, table, head, differs):
    config, _, folder = exported(tmp_path)

    def change(stored):
        wide = stored[TABLE]
        if table != head:  # values that all types hold
            wide = wide.astype(BFLOAT16).astype(np.float16).astype(np.float32)
        stored[TABLE], stored["lm_head.weight"] = wide.astype(table), wide.astype(head)
        if differs:
            stored["lm_head.weight"][300, 7] += 1

    rewrite(folder, change)
    if differs:
        with pytest.raises(ValueError, match="lm_head.weight differs from the embedding table"):
            read_all(folder, config)
    else:
        read_all(folder, config)


# --- config.json


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_a_config_without_its_type_is_of_this_family(tmp_path, version):
    config, _, folder = exported(tmp_path, version)
    content = json.loads((folder / CONFIG).read_text())
    del content["model_type"], content["vision_config"]["model_type"]
    if version == 1:
        del content["text_config"]["model_type"]
    (folder / CONFIG).write_text(json.dumps(content))
    assert read_config(folder) == config
    del content["vision_config"]
    (folder / CONFIG).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="vision_config is not a JSON object"):
        read_config(folder)


@pytest.mark.parametrize("method", ["awq", "gptq", None])
def test_a_quantised_model_is_named(tmp_path, method, capsys):
    _, _, folder = exported(tmp_path)
    content = json.loads((folder / CONFIG).read_text())
    content["quantization_config"] = {"quant_method": method, "bits": 4}
    (folder / CONFIG).write_text(json.dumps(content))
    told = refused(folder, capsys)
    assert "quantised" in told and "model.dequantize()" in told
    assert method is None or f"quantised by {method}" in told


@pytest.mark.parametrize(
    "extra",
    [
        "q_proj.weight.absmax",
        "q_proj.qweight",
        "q_proj.weight_scale",
        "a.quant_state.x",
    ],
)
def test_quantised_tensors_are_named(tmp_path, extra, capsys):
    _, _, folder = exported(tmp_path)
    rewrite(folder, lambda stored: stored.update({extra: np.zeros(3, np.uint8)}))
    told = refused(folder, capsys)
    assert extra in told and "The weights are quantised" in told


def test_fp8_is_named():
    assert "quantised" in hints(["a.weight"], ["F8_E4M3"])[0]
    assert not hints(["a.weight", "a.bias"], ["F32", "BF16", "F64"])


def test_an_adapter_is_named(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file(
        {"base_model.model.a.lora_A.weight": np.ones(2)}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "google/x\\u001b[2J"}')
    with pytest.raises(ValueError, match="holds an adapter of ") as error:
        read_config(folder)
    told = str(error.value)
    assert "google/x" in told and "\x1b" not in told
    assert "paligemma merge BASE" in told


def test_an_adapter_among_the_weights_is_named(tmp_path, capsys):
    _, _, folder = exported(tmp_path)
    rewrite(
        folder, lambda stored: stored.update({"q.lora_A.default.weight": np.ones(2, np.float32)})
    )
    assert "An adapter of LoRA is among them" in refused(folder, capsys)


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG, INDEX])
def test_a_pointer_of_git_lfs_is_named(tmp_path, file, capsys):
    _, _, folder = exported(tmp_path)
    if file == INDEX:
        (folder / WEIGHTS).unlink()
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refused(folder, capsys)
