"""Adapters in files of PEFT: what is written is read again, and in all layouts the same."""

import json

import adapter_cases as cases
import jax.numpy as jnp
import model_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.checkpoint import adapters
from paligemma_lib.checkpoint.adapters.adapter_folder import ADAPTER_MODEL
from paligemma_lib.checkpoint.adapters.peft_modules import LAYOUTS
from paligemma_lib.checkpoint.adapters.peft_settings import ADAPTER_CONFIG, read_settings
from paligemma_lib.checkpoint.huggingface.format import read_header
from paligemma_lib.model.projections import PROJECTIONS, adapter_name

CONFIG = cases.CONFIG


def written(folder, arrays, config=CONFIG, **options):
    return adapters.write_adapter(folder, arrays, **{"base": "nano", "config": config, **options})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("version", model_cases.VERSIONS)
@pytest.mark.parametrize("dora", [False, True])
def test_all_products_come_back_bit_for_bit(tmp_path, version, dora, layout):
    config = model_cases.tiny_config(version)
    arrays = cases.random_adapters(config, dora=dora)
    folder = written(tmp_path / "birds", arrays, config, layout=layout)
    cases.assert_equal(adapters.read_adapter(folder, config), arrays)


@given(
    products=st.sets(st.sampled_from(list(PROJECTIONS)), min_size=1),
    ranks=st.lists(st.integers(1, 9), min_size=14, max_size=14),
    scales=st.lists(
        st.floats(-100, 100, width=32).filter(lambda x: x != 0), min_size=3, max_size=3
    ),
    left_out=st.sets(st.integers(0, 2), max_size=1),
    rslora=st.booleans(),
    dora=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_ranks_scales_and_layers_of_any_kind_come_back(
    tmp_path_factory, products, ranks, scales, left_out, rslora, dora
):
    arrays = {}
    for product, rank in zip(PROJECTIONS, ranks, strict=True):
        if product in products:
            arrays |= cases.random_adapters(targets=[product], rank=rank, dora=dora, seed=rank)
    for name, array in arrays.items():
        if name.endswith("/scale"):
            array[:] = scales[: len(array)]
        if len(array) > 1:
            array[sorted(each for each in left_out if each < len(array))] = 0
    folder = tmp_path_factory.mktemp("adapters")
    written(folder, arrays, rslora=rslora)
    cases.assert_equal(adapters.read_adapter(folder, CONFIG), arrays)


def test_what_peft_needs_is_in_the_settings(tmp_path):
    arrays = cases.random_adapters(targets=["attention"], rank=4, scale=16 / 4**0.5)
    arrays |= cases.random_adapters(targets=["mlp"], rank=8, scale=16 / 8**0.5)
    folder = written(tmp_path / "birds", arrays, rslora=True)
    found = json.loads((folder / ADAPTER_CONFIG).read_text())
    assert (found["r"], found["lora_alpha"], found["use_rslora"]) == (4, 16, True)
    assert list(found["rank_pattern"].values()) == [8, 8, 8]
    assert found["alpha_pattern"] == {}
    assert found["base_model_name_or_path"] == adapters.base_of(folder) == "nano"


def test_the_revision_of_a_base_is_where_peft_looks_for_it(tmp_path):
    arrays = cases.random_adapters(targets=["attention"])
    for base, named in (
        ("owner/base@v1", ("owner/base", "v1")),
        ("owner/base", ("owner/base", None)),
        (str(tmp_path / "a@b"), (str(tmp_path / "a@b"), None)),
    ):
        folder = written(tmp_path / "birds", arrays, base=base)
        found = json.loads((folder / ADAPTER_CONFIG).read_text())
        assert (found["base_model_name_or_path"], found["revision"]) == named
        assert adapters.base_of(folder) == base
    # Folders of earlier versions have it in the name; a local base has none.
    for base, revision, name in (("a/b@v1", "v2", "a/b@v1"), (str(tmp_path), "v2", str(tmp_path))):
        found |= {"base_model_name_or_path": base, "revision": revision}
        (folder / ADAPTER_CONFIG).write_text(json.dumps(found))
        assert adapters.base_of(folder) == name


def test_names_are_those_of_the_layout(tmp_path):
    arrays = cases.random_adapters(targets=["llm/q_proj", "img/fc1", "projector"])
    found = {
        layout: {
            name.partition(".lora_")[0]
            for name in read_header(
                written(tmp_path / layout, arrays, layout=layout) / ADAPTER_MODEL
            )
        }
        for layout in LAYOUTS
    }
    assert {
        "base_model.model.model.language_model.layers.2.self_attn.q_proj",
        "base_model.model.model.vision_tower.encoder.layers.1.mlp.fc1",
        "base_model.model.model.multi_modal_projector.linear",
    } <= found["transformers5"]
    assert {
        "base_model.model.language_model.model.layers.2.self_attn.q_proj",
        "base_model.model.vision_tower.vision_model.encoder.layers.1.mlp.fc1",
        "base_model.model.multi_modal_projector.linear",
    } <= found["transformers4"]


def test_only_what_is_adapted_is_targeted(tmp_path):
    arrays = cases.random_adapters(targets=["llm/q_proj"])
    for array in arrays.values():
        array[1] = 0
    folder = written(tmp_path / "birds", arrays)
    modules = [
        f"model.language_model.layers.{n}.self_attn.{p}_proj" for n in range(3) for p in "qv"
    ]
    modules.append("model.vision_tower.encoder.layers.0.self_attn.q_proj")
    assert read_settings(folder).targeted(modules) == {modules[0], modules[4]}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_values_may_be_written_in_16_bits(tmp_path, dtype):
    arrays = cases.random_adapters(targets=["attention"])
    folder = written(tmp_path / "birds", arrays, dtype=dtype)
    found = adapters.read_adapter(folder, CONFIG)
    name = f"{adapter_name('llm/q_proj')}/a"
    assert np.array_equal(found[name], arrays[name].astype(dtype).astype(np.float32))
    assert found[name].dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_arrays_on_devices_are_written(tmp_path, dtype):
    arrays = cases.random_adapters(targets=["attention"], dora=True)
    on_device = {name: jnp.asarray(each, dtype) for name, each in arrays.items()}
    folder = written(tmp_path / "birds", on_device)
    expected = {name: np.asarray(each, np.float32) for name, each in on_device.items()}
    cases.assert_equal(adapters.read_adapter(folder, CONFIG), expected)


def test_texts_are_kept_beside_the_arrays(tmp_path):
    arrays = cases.random_adapters(targets=["attention"])
    folder = written(tmp_path / "birds", arrays, metadata={"base_storage": "nf4"})
    assert adapters.adapter_metadata(folder) == {"base_storage": "nf4"}


def test_an_earlier_adapter_is_replaced_and_other_files_are_not(tmp_path):
    first, second = (cases.random_adapters(targets=["attention"], seed=seed) for seed in (0, 1))
    folder = written(tmp_path / "birds", first)
    written(folder, second)
    cases.assert_equal(adapters.read_adapter(folder, CONFIG), second)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"other files than an export: notes\.txt"):
        written(folder, first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["birds"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    arrays = cases.random_adapters(targets=["attention"])
    arrays["llm/layers/lora/q_proj/a"][0, 0, 0] = 1e6
    with pytest.raises(ValueError, match="too large for float16"):
        written(tmp_path / "birds", arrays, dtype="float16")
    arrays["llm/layers/lora/q_proj/a"][0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        written(tmp_path / "birds", arrays)
    assert list(tmp_path.iterdir()) == []


def test_arrays_that_are_no_adapter_are_refused_with_all_that_is_wrong(tmp_path):
    arrays = cases.random_adapters(targets=["attention"])
    arrays["llm/layers/lora/q_proj/b"] = arrays["llm/layers/lora/q_proj/b"][..., :-1]
    del arrays["llm/layers/lora/k_proj/scale"]
    arrays["llm/layers/lora/z_proj/a"] = arrays["llm/layers/lora/q_proj/a"]
    with pytest.raises(ValueError, match="not an adapter of this model") as error:
        written(tmp_path / "birds", arrays)
    for name in ("q_proj/b", "k_proj/scale", "z_proj/a"):
        assert name in str(error.value)


def test_magnitudes_for_some_products_only_cannot_be_written(tmp_path):
    arrays = cases.random_adapters(targets=["llm/q_proj"], dora=True)
    arrays |= cases.random_adapters(targets=["llm/v_proj"])
    with pytest.raises(ValueError, match="v_proj have no magnitude"):
        written(tmp_path / "birds", arrays)


def test_the_fingerprint_is_of_the_values(tmp_path):
    arrays = cases.random_adapters(targets=["attention"])
    folder = written(tmp_path / "birds", arrays, layout="transformers4")
    same = adapters.fingerprint(adapters.read_adapter(folder, CONFIG))
    assert same == adapters.fingerprint(arrays)
    arrays["llm/layers/lora/q_proj/a"][0, 0, 0] += 1e-6
    assert adapters.fingerprint(arrays) != same


def test_a_workdir_with_an_adapter_is_one(tmp_path):
    arrays = cases.random_adapters(targets=["attention"])
    written(tmp_path / "adapter", arrays)
    assert adapters.find_adapter(tmp_path) == tmp_path / "adapter"
    cases.assert_equal(adapters.read_adapter(tmp_path, CONFIG), arrays)
    (tmp_path / "captioner.npz").write_bytes(b"")
    assert not adapters.is_adapter(tmp_path)
    assert adapters.is_adapter(tmp_path / "adapter")
    assert not adapters.is_adapter("gs://bucket/run")


def test_the_model_of_the_library_is_no_adapter_whatever_lies_here(tmp_path, monkeypatch):
    written(tmp_path / "nano", cases.random_adapters(targets=["attention"]))
    monkeypatch.chdir(tmp_path)
    assert not adapters.is_adapter("nano")
    assert adapters.is_adapter("./nano")
