"""Checkpoints of either kind through one door: `load_params` of folders, of Kaggle's, of parts."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import hub, model
from paligemma_lib.checkpoint import huggingface, load_params, placement, save_params, stored
from paligemma_lib.checkpoint.huggingface import writer
from paligemma_lib.checkpoint.huggingface.folder import WEIGHTS

CONFIG = cases.tiny_config(2)
PARAMS = cases.random_params(CONFIG)
FLAT = cases.flatten(PARAMS)
DTYPES = ("float32", "bfloat16", "float16")


@pytest.fixture
def folder(tmp_path):
    return huggingface.export(PARAMS, CONFIG, tmp_path / "model")


@pytest.fixture(params=["npz", "folder"])
def checkpoint(request, tmp_path):
    """The same parameters as a file of each kind."""
    if request.param == "folder":
        return huggingface.export(PARAMS, CONFIG, tmp_path / "model")
    save_params(tmp_path / "params.npz", PARAMS)
    return tmp_path / "params.npz"


@pytest.fixture
def small_blocks(monkeypatch):
    """So that even tiny arrays come in several blocks."""
    monkeypatch.setattr(placement, "_BLOCK", 500)


def assert_equal(params, flat, dtype):
    found = cases.flatten(params)
    assert found.keys() == flat.keys()
    for name, value in flat.items():
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(np.asarray(found[name]), value.astype(jnp.dtype(dtype)), name)


def with_vision(**changes):
    return dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, **changes))


def with_language(**changes):
    return dataclasses.replace(CONFIG, language=dataclasses.replace(CONFIG.language, **changes))


@pytest.mark.parametrize("written", DTYPES)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_folder_loads_as_the_npz_does(tmp_path, written, dtype, small_blocks):
    folder = huggingface.export(PARAMS, CONFIG, tmp_path / "model", dtype=written)
    want = {name: value.astype(jnp.dtype(written)) for name, value in FLAT.items()}
    assert_equal(load_params(folder, CONFIG, dtype=dtype), want, dtype or written)


def test_a_folder_of_several_files_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MAX_FILE_BYTES", 100_000)
    folder = huggingface.export(PARAMS, CONFIG, tmp_path / "model")
    assert len(list(folder.glob("*.safetensors"))) > 3
    assert_equal(load_params(folder, CONFIG), FLAT, "float32")


def test_parts_alone(checkpoint):
    for part in ("img", "llm"):
        want = {name: value for name, value in FLAT.items() if name.startswith(part)}
        assert_equal(load_params(checkpoint, CONFIG, parts=(part,)), want, "float32")


@pytest.mark.parametrize("size", [16, 64])
def test_position_embeddings_are_interpolated(checkpoint, size):
    config = with_vision(image_size=size)
    want = dict(FLAT)
    want["img/pos_embedding"] = model.siglip.resize_position_embedding(
        FLAT["img/pos_embedding"], config.vision.num_tokens
    )
    assert_equal(load_params(checkpoint, config), want, "float32")


def test_a_position_embedding_of_no_square_is_refused(tmp_path):
    vision = with_vision(image_size=24)  # 9 patches
    folder = huggingface.export(cases.random_params(vision), vision, tmp_path / "model")
    safetensors = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    values = safetensors.load_file(folder / WEIGHTS)
    name = "vision_tower.vision_model.embeddings.position_embedding.weight"
    values[name] = np.zeros((10, 48), np.float32)
    safetensors.save_file(values, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"weight \[10, 48\], expected \[16, 48\]"):
        load_params(folder, CONFIG)


def test_a_sharding_is_kept(checkpoint):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("x",))
    one = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    loaded = load_params(checkpoint, CONFIG, sharding={"img": one, "llm": one})
    assert all(leaf.sharding == one for leaf in jax.tree.leaves(loaded))


def test_rows_are_read_when_asked_for(checkpoint):
    with stored.open_params(checkpoint, CONFIG) as params:
        array = params["llm/layers/mlp/linear"]
        assert (array.shape, array.dtype) == ((3, 128, 64), np.float32)
        np.testing.assert_array_equal(array[1:2], FLAT["llm/layers/mlp/linear"][1:2])


def test_a_kaggle_model_is_fetched(checkpoint, monkeypatch):
    asked = []
    monkeypatch.setattr(hub.kaggle, "fetch", lambda name: asked.append(name) or checkpoint)
    handle = "google/paligemma/jax/paligemma-3b-pt-224"
    assert_equal(load_params(handle, CONFIG), FLAT, "float32")
    assert stored.read_config(handle) == CONFIG
    assert asked == [handle, handle]


def test_a_missing_file_is_not_looked_for_at_kaggle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub.kaggle, "fetch", lambda name: pytest.fail("asked Kaggle"))
    with pytest.raises(FileNotFoundError, match="runs/first/step_10/params.npz does not exist"):
        load_params("runs/first/step_10/params.npz", CONFIG)


# --- What config.json says


def test_a_setting_of_config_json_that_differs_is_a_warning(folder):
    config = with_language(final_softcap=30.0, attention_softcap=None)
    with pytest.warns(UserWarning) as caught:
        assert_equal(load_params(folder, config), FLAT, "float32")
    (warning,) = caught
    assert "language.attention_softcap is 50.0 in config.json" in str(warning.message)
    assert "language.final_softcap is None in config.json" in str(warning.message)


@pytest.mark.parametrize(
    "config", [CONFIG, with_language(query_scale=0.25), with_vision(image_size=64)]
)
def test_what_is_the_same_model_is_no_warning(folder, config):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_params(folder, config)


def test_heads_that_only_config_json_tells_apart_are_an_error(folder):
    """Shapes agree: heads are flattened."""
    with pytest.raises(ValueError, match=r"vision.num_heads is 4 in config.json(?s:.*)read_config"):
        load_params(folder, with_vision(num_heads=2))


def test_all_differences_come_with_what_config_json_says(folder):
    with pytest.raises(ValueError) as caught:
        load_params(folder, cases.tiny_config(1))
    for part in (
        f"{folder} does not hold the parameters of this model.",
        "  6 unexpected: ",
        "  6 of another shape: ",
        "  config.json describes another model at 32 pixels: call checkpoint.read_config on it.",
    ):
        assert part in str(caught.value)


def test_a_folder_without_config_json_loads_but_does_not_tell(folder):
    (folder / "config.json").unlink()
    assert_equal(load_params(folder, CONFIG), FLAT, "float32")
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        stored.read_config(folder)


def test_a_model_that_is_not_computed_here_is_not_loaded(folder):
    content = json.loads((folder / "config.json").read_text())
    content["text_config"]["rope_theta"] = 1e6
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="rope_theta is 1000000.0, expected 10000.0"):
        load_params(folder, CONFIG)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(folder):
    with stored.open_params(folder, CONFIG) as params:
        os.truncate(folder / WEIGHTS, 2000)
        with pytest.raises(ValueError, match="the file ends too early. Download it again"):
            params["llm/layers/mlp/linear"][0:1]


# --- Memory

MEMORY = """
import sys
import jax, numpy as np
import model_cases as cases
from paligemma_lib.checkpoint import load_params
from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig

def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) * 1024

language = GemmaConfig(1024, 8, 8192, 4, 1, 64, 512)
config = PaliGemmaConfig(SiglipConfig(32, 8, 48, 2, 96, 4), language)
load_params(sys.argv[1], config, parts=("img",))
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
params = load_params(sys.argv[1], config, dtype=sys.argv[2])
extra = resident("VmHWM") - before - sum(leaf.nbytes for leaf in jax.tree.leaves(params))
layer, slack = 4 * 2 * 1024 * 8192, 32 << 20  # of gating_einsum as it is stored
assert extra <= slack + layer * (sys.argv[2] != "float32"), extra / 2**20
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_host_holds_the_result_and_at_most_a_layer(tmp_path, dtype):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs a kernel that resets a process's peak memory")
    vision, language = CONFIG.vision, model.variants.GemmaConfig(1024, 8, 8192, 4, 1, 64, 512)
    config = model.variants.PaliGemmaConfig(vision, language)
    params = {
        name: np.zeros(leaf.shape, np.float32)
        for name, leaf in cases.flatten(model.abstract_params(config)).items()
    }
    folder = huggingface.export(cases.unflatten(params), config, tmp_path / "model")
    here = os.path.dirname(__file__)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.path.dirname(here)])}
    command = [sys.executable, "-c", MEMORY, str(folder), dtype]
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    shutil.rmtree(folder)
    assert result.returncode == 0, result.stderr
