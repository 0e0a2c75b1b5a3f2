"""Measures what a self-critical step costs beside a supervised one with as many captions.

    python benchmarks/self_critical_step.py [--batch 16] [--captions 5] [--steps 8]

Both train nano's attention on the same drawn images. A self-critical step draws the captions after
one prefill, rewards them by CIDEr, and trains on them, packed behind their image. The ratio is that
of the medians, the two kinds of step taking turns. With `--kl`, the model of the start is asked,
too.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import jax

from paligemma_lib.run import Setup, load
from paligemma_lib.run.assembly import optimizer_of, train_step_of, trainable_of
from paligemma_lib.run.batching import train_batches_of
from paligemma_lib.run.prepare import prepare
from paligemma_lib.run.self_critical import SelfCritical
from paligemma_lib.train import init_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--captions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--kl", type=float, default=0.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


def measure(args: argparse.Namespace, folder: Path) -> None:
    options = {
        "workdir": folder / "run",
        "data.name": 200,
        "batch_size": args.batch,
        "microbatches": 1,
        "max_new_tokens": 32,
        "reward.name": "cider",
        "reward.samples": args.captions,
        "reward.kl": args.kl,
        "optimizer.learning_rate": 1e-4,
    }
    config = load("demo", [f"--config.{name}={value}" for name, value in options.items()])
    prepared = prepare(Setup(config))
    optimizer = optimizer_of(prepared.config, 1000)
    state = init_state(
        prepared.model, prepared.params, optimizer,
        trainable=trainable_of(config.stages[0]), mesh=prepared.mesh,
    )  # fmt: skip
    start = jax.tree.map(jax.numpy.copy, state.trained)
    rewarded = SelfCritical(prepared, start)
    step_of = train_step_of(prepared.config, prepared.model, optimizer, prepared.mesh)
    batches = train_batches_of(
        prepared.config, prepared.data["train"], prepared.tokenizer,
        image_size=prepared.model.vision.image_size, start_step=0,
    )  # fmt: skip

    seconds: dict[str, list[float]] = {"supervised": [], "drawing": [], "self-critical": []}
    for number in range(2 * args.steps + 8):
        batch = next(batches)
        began = time.perf_counter()
        if number % 2:
            batch, _ = rewarded.batch(state, batch, batches, number)
        drawn = time.perf_counter()
        state, metrics = step_of(state, batch)
        jax.block_until_ready(metrics)
        ended = time.perf_counter()
        if number >= 8:  # the first few compile, for each length of text
            seconds["self-critical" if number % 2 else "supervised"].append(ended - began)
            seconds["drawing"] += [drawn - began] * (number % 2)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    for name, each in median.items():
        print(f"{name:<13} {1000 * each:8.0f} ms a step of {args.batch} images")
    ratio = median["self-critical"] / median["supervised"]
    print(f"self-critical / supervised: {ratio:.2f}")


if __name__ == "__main__":
    main()
