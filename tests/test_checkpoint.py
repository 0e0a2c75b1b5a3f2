"""Loading and saving parameters: what comes back, where it lies, and what is refused."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time

import fsspec
import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paligemma_lib import model
from paligemma_lib.checkpoint import load_params, placement, save_params

CONFIG = cases.tiny_config(2)
PARAMS = cases.random_params(CONFIG)
FLAT = cases.flatten(PARAMS)
DTYPES = ("float32", "bfloat16", "float16")


def as_numpy_stores(flat, dtype, prefix="params/"):
    """Arrays as the reference writes them; NumPy makes bfloat16 a void type."""
    return {f"{prefix}{name}": value.astype(jnp.dtype(dtype)) for name, value in flat.items()}


def assert_equal(params, flat, dtype):
    found = cases.flatten(params)
    assert found.keys() == flat.keys()
    for name, value in flat.items():
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(np.asarray(found[name]), value.astype(jnp.dtype(dtype)), name)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "params.npz"


@pytest.fixture
def small_blocks(monkeypatch):
    """So that even tiny arrays come in several blocks."""
    monkeypatch.setattr(placement, "_BLOCK", 500)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("prefix", ["params/", ""])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(path, dtype, prefix, save, small_blocks):
    save(path, **as_numpy_stores(FLAT, dtype, prefix))
    assert_equal(load_params(path, CONFIG), FLAT, dtype)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_casts_as_numpy_does(path, stored, dtype, small_blocks):
    np.savez(path, **as_numpy_stores(FLAT, stored))
    want = {name: value.astype(jnp.dtype(stored)) for name, value in FLAT.items()}
    assert_equal(load_params(path, CONFIG, dtype=dtype), want, dtype)


def test_each_parameter_may_get_a_type_of_its_own(path):
    np.savez(path, **as_numpy_stores(FLAT, "bfloat16"))

    def dtype(name):
        return "float32" if name.startswith("llm/layers/attn/") else None

    found = load_params(path, CONFIG, dtype=dtype)
    assert found["llm"]["layers"]["attn"]["q_einsum"]["w"].dtype == np.float32
    assert found["llm"]["layers"]["mlp"]["linear"].dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_reads_what_is_written(path, dtype, small_blocks):
    save_params(path, PARAMS, dtype)
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}  # also compares checksums
    assert {name.removeprefix("params/") for name in found} == FLAT.keys()
    for name, value in FLAT.items():
        stored = found[f"params/{name}"]
        assert stored.dtype == ("V2" if dtype == "bfloat16" else dtype)
        want = value.astype(jnp.dtype(dtype))
        np.testing.assert_array_equal(stored.view(jnp.dtype(dtype)), want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_round_trip_is_bit_exact_and_files_repeat(path, tmp_path, dtype):
    save_params(path, PARAMS, dtype)
    params = load_params(path, CONFIG)
    again = tmp_path / "again.npz"
    save_params(again, params)
    assert path.read_bytes() == again.read_bytes()


def test_pieces_are_written_as_one(path):
    pieces = cases.flatten(PARAMS)
    name = "llm/layers/mlp/linear"
    pieces[name] = (FLAT[name][:1].astype(np.float16), FLAT[name][1:])
    save_params(path, cases.unflatten(pieces), "float16")
    assert_equal(load_params(path, CONFIG), FLAT, "float16")
    with pytest.raises(ValueError, match=f"{name} is in pieces of different types"):
        save_params(path, cases.unflatten(pieces))


def test_golden_files_load_and_compute_the_reference_logits(shared, path):
    params, batch, everything = cases.golden(shared, 2)
    save_params(path, params)
    batch = {key: value[:, :-1] if value.ndim == 2 else value for key, value in batch.items()}
    logits = cases.all_logits(CONFIG, load_params(path, CONFIG), batch)
    supervised = everything["batch/mask_loss"][:, 1:] == 1
    difference = np.abs(np.asarray(logits) - everything["logits"])[supervised]
    assert difference.max() < 1e-4


def test_position_embeddings_of_another_size_are_interpolated(path):
    save_params(path, PARAMS, "bfloat16")
    larger = dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, image_size=64))
    found = load_params(path, larger)["img"]["pos_embedding"]
    stored = FLAT["img/pos_embedding"].astype(jnp.bfloat16).astype(np.float32)
    want = model.siglip.resize_position_embedding(stored, 64)
    assert found.shape == (1, 64, 48)
    np.testing.assert_array_equal(np.asarray(found), want.astype(jnp.bfloat16))


def test_reads_a_url_without_tensorflow(path):
    save_params(path, PARAMS)
    with fsspec.open("memory://bucket/params.npz", "wb") as file:
        file.write(path.read_bytes())
    assert_equal(load_params("memory://bucket/params.npz", CONFIG), FLAT, "float32")
    with pytest.raises(FileNotFoundError, match="memory://bucket/other.npz is not there"):
        load_params("memory://bucket/other.npz", CONFIG)


def test_a_url_that_needs_a_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ImportError, match=r"paligemma_lib\[gcs\]"):
        load_params("gs://bucket/params.npz", CONFIG)


# --- Where parameters lie

SHARDED = """
import sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
import model_cases as cases
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P, SingleDeviceSharding
from paligemma_lib.checkpoint import load_params, placement, save_params

placement._BLOCK = 8000
folder, on_accelerator = sys.argv[1], sys.argv[2] == "1"
if on_accelerator:  # the path that a GPU or TPU takes
    placement._is_cpu = lambda device: False
config = cases.tiny_config(2)
params = cases.random_params(config)
save_params(f"{folder}/a.npz", params, "bfloat16")
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))

def spec(leaf):
    last = P(*[None] * (leaf.ndim - 1), "y") if leaf.shape[-1] % 2 == 0 else P()
    if leaf.shape[0] % 4 == 0:
        return P(("x", "y"))
    if leaf.shape[0] % 2 == 0 and leaf.ndim > 1:
        return P("x", *[None] * (leaf.ndim - 2), "y")
    return last

shardings = jax.tree.map(lambda leaf: NamedSharding(mesh, spec(leaf)), params)
loaded = load_params(f"{folder}/a.npz", config, sharding=shardings, dtype="float16")
assert jax.tree.map(lambda leaf: leaf.sharding, loaded) == shardings
assert len({str(leaf.sharding.spec) for leaf in jax.tree.leaves(loaded)}) > 3
want = load_params(f"{folder}/a.npz", config, dtype="float16")
jax.tree.map(np.testing.assert_array_equal, loaded, want)
save_params(f"{folder}/b.npz", loaded)
save_params(f"{folder}/c.npz", want)
assert open(f"{folder}/b.npz", "rb").read() == open(f"{folder}/c.npz", "rb").read()

replicated = NamedSharding(mesh, P())
one = SingleDeviceSharding(jax.devices()[3])
loaded = load_params(f"{folder}/a.npz", config, sharding={"img": replicated, "llm": one})
assert all(leaf.sharding == one for leaf in jax.tree.leaves(loaded["llm"]))
assert all(leaf.sharding == replicated for leaf in jax.tree.leaves(loaded["img"]))
save_params(f"{folder}/d.npz", loaded)
assert open(f"{folder}/d.npz", "rb").read() == open(f"{folder}/a.npz", "rb").read()
"""


@pytest.mark.parametrize("on_accelerator", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_every_device_gets_its_part(tmp_path, on_accelerator):
    run(SHARDED, tmp_path, on_accelerator)


def test_an_accelerator_is_filled_and_read_in_blocks(small_blocks, monkeypatch):
    monkeypatch.setattr(placement, "_is_cpu", lambda device: False)
    stored = np.random.default_rng(0).normal(size=(7, 70)).astype(np.float32)
    read = []

    def read_rows(rows, out):
        read.append((rows.start, rows.stop))
        out[...] = stored[rows]

    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    kind = np.dtype(np.float16)
    array = placement.to_devices("w", stored.shape, kind, sharding, read_rows, stored.dtype)
    assert read == [(row, row + 1) for row in range(7)]  # a row has 280 bytes, a block 500
    np.testing.assert_array_equal(np.asarray(array), stored.astype(np.float16))
    blocks = list(placement.to_host("w", array, kind))
    assert [len(block) for block in blocks] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), np.asarray(array))


def run(code, *args):
    here = os.path.dirname(__file__)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.path.dirname(here)])}
    command = [sys.executable, "-c", code, *map(str, args)]
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout


MEMORY = """
import sys
import jax, numpy as np
from jax.sharding import SingleDeviceSharding
from paligemma_lib.checkpoint import placement
from paligemma_lib.checkpoint.npz import NpzReader, write_npz

path, stored, dtype = sys.argv[1], *map(jax.numpy.dtype, sys.argv[2:])
shape = (12, 1024, 8192)  # 16 or 32 MiB a layer
placement._BLOCK = 1 << 20

def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) * 1024

layer = np.full(shape[1:], 0.5, stored)
with open(path, "wb") as file:
    write_npz(file, [("w", shape, stored, (layer for _ in range(shape[0])))])
slice_size = layer.nbytes
del layer
jax.block_until_ready(jax.numpy.ones(3) + 1)
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
with NpzReader(path) as file:
    array = placement.to_devices(
        "w", shape, dtype, SingleDeviceSharding(jax.devices()[0]),
        lambda rows, out: file.read("w", rows, out), stored,
    )
jax.block_until_ready(array)
extra = resident("VmHWM") - before - array.nbytes
print("load", extra / slice_size, file=sys.stderr)
slack = 24 << 20
assert extra <= (slice_size * (stored != dtype)) * 1.5 + slack, extra / 2**20
if stored == dtype:
    before = resident("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    with open(path, "wb") as file:
        write_npz(file, [("w", shape, dtype, placement.to_host("w", array, dtype))])
    assert resident("VmHWM") - before <= slack, (resident("VmHWM") - before) / 2**20
"""


@pytest.mark.parametrize(("stored", "dtype"), [("bfloat16", "bfloat16"), ("float32", "bfloat16")])
def test_the_host_holds_the_result_and_at_most_a_layer(path, stored, dtype):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs a kernel that resets a process's peak memory")
    run(MEMORY, path, stored, dtype)


# --- What does not belong together


def saved(path, changes):
    flat = {name: value for name, value in {**FLAT, **changes}.items() if value is not None}
    np.savez(path, **flat)
    return path


def test_all_differences_are_in_one_error(path):
    kernel = FLAT["img/head/kernel"]
    saved(
        path,
        {
            "llm/final_norm/scale": None,
            "llm/surplus": np.zeros(3, np.float32),
            "img/head/kernel": kernel[:-1],
            "img/head/bias": np.zeros(64),
        },
    )
    with pytest.raises(ValueError) as caught:
        load_params(path, CONFIG)
    message = str(caught.value)
    assert message.startswith(f"{path} does not hold the parameters of this model.")
    assert "1 missing: llm/final_norm/scale" in message
    assert "1 unexpected: llm/surplus" in message
    assert "1 of another shape: img/head/kernel [47, 64], expected [48, 64]" in message
    assert "1 of another type: img/head/bias float64" in message
    assert "float32, bfloat16, float16" in message


def test_another_model_is_named(path):
    save_params(path, cases.random_params(model.config.nano(48)))
    with pytest.raises(ValueError, match=r"It is nano at 48 pixels: take config.nano\(image_size="):
        load_params(path, CONFIG)
    save_params(path, PARAMS)
    with pytest.raises(ValueError, match="It is another model at 32 pixels: take .*read_config"):
        load_params(path, cases.tiny_config(1))


def test_a_part_is_loaded_on_purpose_only(path):
    vision = {name: value for name, value in FLAT.items() if name.startswith("img/")}
    np.savez(path, **vision)
    with pytest.raises(ValueError, match=r"missing: llm/.*(?s:.*)parts=\('img',\)"):
        load_params(path, CONFIG)
    assert_equal(load_params(path, CONFIG, parts=("img",)), vision, "float32")
    np.savez(path, **FLAT)
    assert_equal(load_params(path, CONFIG, parts=("img",)), vision, "float32")
    np.savez(path, **FLAT, other=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="1 unexpected: other"):
        load_params(path, CONFIG, parts=("img",))


@pytest.mark.parametrize("parts", ["img", (), ("vision",)])
def test_unknown_parts_are_an_error(path, parts):
    with pytest.raises(ValueError, match="expected a tuple of one or more"):
        load_params(path, CONFIG, parts=parts)


@pytest.mark.parametrize("function", ["load", "save"])
def test_values_too_large_for_float16_are_an_error(path, function):
    flat = dict(FLAT)
    flat["llm/final_norm/scale"] = flat["llm/final_norm/scale"].copy()
    flat["llm/final_norm/scale"][3] = -70000
    params = cases.unflatten(flat)
    if function == "load":
        save_params(path, params)
    with pytest.raises(ValueError, match=r"llm/final_norm/scale has values up to 70000.*65504"):
        if function == "load":
            load_params(path, CONFIG, dtype="float16")
        else:
            save_params(path, params, "float16")
    assert os.listdir(path.parent) == (["params.npz"] if function == "load" else [])


@pytest.mark.parametrize("value", [np.inf, np.nan, 65504.0])
def test_what_float16_can_hold_is_kept(path, value):
    flat = dict(FLAT)
    flat["img/head/bias"] = np.full(64, value, np.float32)
    save_params(path, cases.unflatten(flat), "float16")
    np.testing.assert_array_equal(load_params(path, CONFIG)["img"]["head"]["bias"], value)


def test_types_that_cannot_be_written_are_an_error(path):
    with pytest.raises(ValueError, match=r"img/w is int32; what can be written is float32"):
        save_params(path, {"img": {"w": np.zeros(3, np.int32)}})
    with pytest.raises(ValueError, match="dtype='float64', expected one of float32"):
        save_params(path, PARAMS, "float64")
    with pytest.raises(ValueError, match="no parameters"):
        save_params(path, {})
    assert not path.exists()


def test_places_that_cannot_be_written_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder; create it"):
        save_params(tmp_path / "no" / "a.npz", PARAMS)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save_params(tmp_path, PARAMS)


# --- What happens when something happens

FULL = """
import resource, sys
import model_cases as cases
from paligemma_lib.checkpoint import save_params
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    save_params(sys.argv[1], cases.random_params(cases.tiny_config(2)))
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_file(path):
    path.write_bytes(b"old")
    message = run(FULL, path)
    expected = r"could not be written \(.*it needs [\d,]{7,} bytes, and [\d,]+ are free.* unchanged"
    assert re.search(expected, message), message
    assert os.listdir(path.parent) == ["params.npz"]
    assert path.read_bytes() == b"old"


KILLED = """
import sys, time
import numpy as np
from paligemma_lib.checkpoint import outgoing, save_params
def slow(name, array, dtype):
    for row in np.asarray(array):
        yield row
        print("row", flush=True)
        time.sleep(0.2)
outgoing.to_host = slow
save_params(sys.argv[1], {"w": np.ones((1000, 100_000), np.float32)})
"""


def test_a_killed_process_leaves_the_old_file_whole(path):
    save_params(path, PARAMS)
    before = path.read_bytes()
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "row\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == before
    partial = [name for name in os.listdir(path.parent) if name != path.name]
    assert len(partial) == 1 and partial[0].endswith(".partial")


def test_imports_without_tensorflow():
    run("import sys; sys.modules['tensorflow'] = None; import paligemma_lib.checkpoint")


def test_one_sharding_serves_all(path):
    save_params(path, PARAMS)
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("x",)), PartitionSpec())
    loaded = load_params(path, CONFIG, sharding=sharding)
    assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(loaded))
