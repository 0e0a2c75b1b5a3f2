"""A value that is no number lies in one process's part only: the run ends, and nobody hangs."""

import textwrap

import numpy as np
import pytest
from checkpoint_cases import FLAT
from process_cases import TIMEOUT, launched

SCRIPT = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import model_cases as cases
from paligemma_lib.checkpoint import load_params, placement
from paligemma_lib.runtime import processes

path, host, count, number = (each.split("=")[-1] for each in (sys.argv[1], *sys.argv[-3:]))
placement._BLOCK = 8000  # so that each process reads its own rows only
with processes.joined(host, int(count), int(number)):
    mesh = Mesh(np.array(jax.devices()), ("x",))
    split = lambda leaf: NamedSharding(mesh, P("x") if leaf.shape[0] % 2 == 0 else P())
    config = cases.tiny_config(2)
    sharding = jax.tree.map(split, cases.random_params(config))
    params = load_params(path, config, sharding=sharding)
    print(f"process {number} has loaded", flush=True)
    total = jax.jit(lambda tree: sum(leaf.sum() for leaf in jax.tree.leaves(tree)))
    jax.block_until_ready(total(params))
    print("never", flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_the_process_that_has_it_ends_the_run(tmp_path):
    flat = {name: values.copy() for name, values in FLAT.items()}
    flat["llm/embedder/input_embedding"][500, 3] = np.nan  # of 512 rows: with process 1
    np.savez(tmp_path / "bad.npz", **flat)
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    result = launched(2, [str(tmp_path / "script.py"), str(tmp_path / "bad.npz")])
    assert result.returncode != 0
    assert "NaN or infinite in llm/embedder/input_embedding (1 of " in result.stderr
    assert "process 0 has loaded" in result.stdout and "never" not in result.stdout
    assert "process 1 has loaded" not in result.stdout
    assert "hangs" not in result.stderr
