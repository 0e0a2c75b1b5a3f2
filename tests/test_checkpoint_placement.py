"""Where loaded parameters lie, and what they take on their way there and back."""

import os

import jax
import numpy as np
import pytest
from checkpoint_cases import CONFIG, PARAMS, run
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from paligemma_lib.checkpoint import load_params, placement, save_params, shard_buffers


@pytest.fixture
def path(tmp_path):
    return tmp_path / "params.npz"


SHARDED = """
import sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
import model_cases as cases
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P, SingleDeviceSharding
from paligemma_lib.checkpoint import load_params, placement, save_params, shard_buffers

placement._BLOCK = 8000
folder, on_accelerator = sys.argv[1], sys.argv[2] == "1"
if on_accelerator:  # the path that a GPU or TPU takes
    placement.is_cpu = shard_buffers.is_cpu = lambda device: False
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


def test_an_accelerator_is_filled_and_read_in_blocks(monkeypatch):
    monkeypatch.setattr(placement, "_BLOCK", 500)
    for module in (placement, shard_buffers):
        monkeypatch.setattr(module, "is_cpu", lambda device: False)
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


@pytest.mark.slow
@pytest.mark.parametrize(("stored", "dtype"), [("bfloat16", "bfloat16"), ("float32", "bfloat16")])
def test_the_host_holds_the_result_and_at_most_a_layer(path, stored, dtype):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs a kernel that resets a process's peak memory")
    run(MEMORY, path, stored, dtype)


def test_one_sharding_serves_all(path):
    save_params(path, PARAMS)
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("x",)), PartitionSpec())
    loaded = load_params(path, CONFIG, sharding=sharding)
    assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(loaded))
