"""Does PaliGemma 3B train on a small machine, how fast, and how much memory does it take?

    python benchmarks/train_3b.py
    PYTHONPATH=path/to/big_vision python benchmarks/train_3b.py --big-vision    # needs 17 GiB

Weights are random, bfloat16 where they are frozen; the language model's attention trains in float32
by plain SGD. A step takes one image of 224 pixels and 128 text positions: ours with five captions
packed behind it, big_vision's, which is its fine-tuning notebook's, with one. Each runs in a
process of its own, ours first. The first step compiles and does not count. Memory is the most that
the process ever held, weights being made included.
Targets on 2 cores with 24 GiB: at most 12 GiB, and 4 times the captions/s of big_vision; where it
is not run, 31.7 s a step stand for it.
"""

import argparse
import dataclasses
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

CAPTIONS, TOKENS, TEXT, RATE = 5, 14, 128, 0.03  # 14 tokens are a caption of average length
BIG_VISION_SECONDS = 31.7  # measured on a machine of 2 cores


def example(captions: int) -> dict[str, np.ndarray]:
    """A batch of one: an image of noise, the prompt `caption en`, captions of any tokens."""
    from paligemma_lib.data import pack

    rng = np.random.default_rng(0)
    suffixes = [[*rng.integers(300, 250_000, TOKENS - 1), 1] for _ in range(captions)]
    row = pack([2, 21209, 659, 108], suffixes, TEXT)
    image = rng.uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    return {"image": image} | {name: values[None] for name, values in row.items()}


def ours(dtype: str, remat: str) -> Iterator[Any]:
    """Makes a step each time it is asked for the next."""
    import jax
    from accelerator.real_models import random_params

    from paligemma_lib import model, sharding, train

    config = dataclasses.replace(model.variants.paligemma_3b(), dtype=dtype, remat=remat)
    mesh = sharding.make_mesh()
    optimizer = train.make_optimizer(
        "sgd", learning_rate=RATE, total_steps=1, schedule="constant", clip_norm=None
    )
    params = random_params(config, lambda name: "bfloat16")
    params = jax.device_put(params, sharding.replicated(mesh))
    state = train.init_state(config, params, optimizer, trainable="attention", mesh=mesh)
    del params
    step, batch = train.make_train_step(config, optimizer, mesh=mesh), example(CAPTIONS)
    while True:
        state, metrics = jax.block_until_ready(step(state, batch))
        yield float(metrics["loss"])


def big_vision() -> Iterator[Any]:
    """Likewise; parameters are made as those of ours, whose names and shapes are the same."""
    import jax
    from accelerator.real_models import random_params
    from big_vision.models.proj.paligemma import paligemma
    from train_speed import notebook_step

    from paligemma_lib import model

    theirs = paligemma.Model(
        llm={"vocab_size": 257_152, "variant": "gemma_2b"},
        img={"variant": "So400m/14", "pool_type": "none", "scan": True},
    )
    params = random_params(
        model.variants.paligemma_3b(),
        lambda name: "float32" if name.startswith("llm/layers/attn/") else "bfloat16",
    )
    step, batch = notebook_step(theirs), example(1)
    while True:
        params, loss = jax.block_until_ready(step(params, batch, RATE))
        yield float(loss)


def work(steps: Iterator[Any], count: int) -> None:
    """Makes the steps and prints seconds a step and the process's GiB; runs in its own process."""
    print(f"  loss {next(steps):.2f}; compiled", file=sys.stderr)
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        next(steps)
        seconds.append(time.perf_counter() - start)
        print(f"  {seconds[-1]:.1f} s", file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(statistics.median(seconds), peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--big-vision", action="store_true", help="run big_vision too")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dtype", default="float32", help="of our activations")
    parser.add_argument("--remat", default="dots", help="what ours keeps, see PaliGemmaConfig")
    parser.add_argument("--worker", choices=("ours", "big_vision"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        steps = ours(args.dtype, args.remat) if args.worker == "ours" else big_vision()
        return work(steps, args.steps)

    captions = {"ours": CAPTIONS} | ({"big_vision": 1} if args.big_vision else {})
    rates = {"big_vision, measured elsewhere": 1 / BIG_VISION_SECONDS}
    for name, count in captions.items():
        command = [sys.executable, *sys.argv, "--worker", name]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if answer.returncode:
            print(f"{name}: not measured, its process ended with exit code {answer.returncode}")
            continue
        seconds, peak = map(float, answer.stdout.split())
        rates[name] = count / seconds
        print(
            f"{name}: {seconds:.1f} s a step, {rates[name]:.3f} captions/s; "
            f"the process held {peak:.1f} GiB at most"
        )
    for name, rate in rates.items():
        if "ours" in rates and name != "ours":
            print(f"ours is {rates['ours'] / rate:.2f} times as fast as {name}, in captions/s")


if __name__ == "__main__":
    main()
