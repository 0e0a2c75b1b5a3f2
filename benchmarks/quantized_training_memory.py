"""Compiles a step of training adapters on quantised weights, and reads off XLA's figure for memory.

    PYTHONPATH=. python benchmarks/quantized_training_memory.py paligemma_3b 8 v5e:1x1

`quantized_weights.py training` runs it for three models. Nothing is loaded or computed: a program
is compiled for one device, which need not be there. Prints the bytes of its arguments (weights,
adapters, optimizer state, batch) and its peak.
"""

import dataclasses
import os
import subprocess
import sys

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def step_bytes(name: str, batch_size: int, topology: str, storage: str = "nf4") -> str:
    """Compiles in a process of its own; returns what it told."""
    command = [sys.executable, __file__, name, str(batch_size), topology, storage]
    ended = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    return ended.stdout.strip() or f"{name}: {ended.stderr.strip()[-600:]}"


def main(name: str, batch_size: int, topology: str, storage: str = "nf4") -> None:
    import jax

    from paligemma_lib import model, sharding, train
    from paligemma_lib.model.adapter_params import LowRank, abstract_adapters, with_adapters
    from paligemma_lib.planning.program import abstract_batch
    from paligemma_lib.planning.slices import Slices
    from paligemma_lib.planning.work import Training
    from paligemma_lib.run import RunConfig
    from paligemma_lib.train.state import abstract_state

    config = dataclasses.replace(getattr(model.variants, name)(), dtype="bfloat16", remat="full")
    devices = Slices.named(topology, 1).devices()[:1]
    mesh = sharding.make_mesh(devices=devices)
    params = model.abstract_params(config)
    params = with_adapters(params, abstract_adapters(params, LowRank(16, targets=("llm",))))
    places = sharding.param_shardings(mesh, params)
    params = jax.tree.map(lambda leaf, place: leaf.update(sharding=place), params, places)
    optimizer = train.make_optimizer("adamw", learning_rate=1e-4, total_steps=10)
    state = abstract_state(
        params, optimizer, trainable="lora", frozen_dtype=storage, undone_dtype=config.dtype,
        mesh=mesh,
    )  # fmt: skip
    step = train.make_train_step(config, optimizer, mesh=mesh, microbatches=batch_size)
    work = Training(RunConfig(batch_size=batch_size, microbatches=batch_size))
    changing = dict(vars(state))
    with jax.set_mesh(mesh):
        traced = step.jitted.trace(
            changing.pop("frozen"), changing, abstract_batch(config, work, mesh)
        )
        memory = traced.lower().compile().memory_analysis()
    peak, gib = memory.peak_memory_in_bytes, 2**30
    if topology.startswith("cpu"):
        peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    print(
        f"{name}, {storage}, batch {batch_size}, {topology}: {peak / gib:.2f} GiB, of which "
        f"arguments {memory.argument_size_in_bytes / gib:.2f}"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
