"""Folders of safetensors, in and out."""

import dataclasses
import json
import math
import subprocess
import sys
import tracemalloc

import jax
import model_cases as cases
import numpy as np
import pytest
from huggingface_cases import (
    DTYPES,
    assert_identical,
    exported,
    load_file,
    random_params,
    read_all,
    rewrite,
)
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib import model
from paligemma_lib.checkpoint import huggingface
from paligemma_lib.checkpoint.huggingface import tensors, writer
from paligemma_lib.checkpoint.huggingface.folder import INDEX, WEIGHTS
from paligemma_lib.checkpoint.matching import expected_shapes


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
        model.variants.paligemma_3b(448),
        model.variants.paligemma2_3b(),
        model.variants.paligemma2_10b(),
        model.variants.paligemma2_28b(),
        model.variants.nano(),
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


PROGRAM = """
import sys
for name in ("tensorflow", "torch", "transformers", "safetensors"):
    sys.modules[name] = None
import paligemma_lib.checkpoint.huggingface
"""


def test_imports_without_tensorflow_torch_and_their_kin():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
