"""Measures what a self-critical step costs beside a supervised one with as many captions.

    python benchmarks/self_critical_step.py [--batch 16] [--captions 5] [--steps 8] [--kl 0.05]
    python benchmarks/self_critical_step.py --trl-python PYTHON

Both train nano's attention on the same drawn images. A self-critical step draws the captions after
one prefill, rewards them by CIDEr, and trains on them, packed behind their image. Steps take turns,
and the medians count. With `--kl`, the model of the start is asked, too. PYTHON has trl, whose GRPO
makes steps of the same model, images and numbers of captions, in a process of its own. Targets: at
most 2.5 times a supervised step, and 4 times the samples a second of trl.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

from paligemma_lib.checkpoint import huggingface
from paligemma_lib.run import Setup, load
from paligemma_lib.run.assembly import optimizer_of, train_step_of, trainable_of
from paligemma_lib.run.batching import train_batches_of
from paligemma_lib.run.prepare import Prepared, prepare
from paligemma_lib.run.self_critical import SelfCritical
from paligemma_lib.tokenizer.fast_tokenizer import tokenizer_json
from paligemma_lib.train import init_state

_COMPILING = 4  # steps of each kind that are not counted
_TOKENS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--captions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--kl", type=float, default=0.0)
    parser.add_argument("--trl-python", help="with trl, torch and transformers")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


def measure(args: argparse.Namespace, folder: Path) -> None:
    options = {
        "workdir": folder / "run",
        "data.name": 200,
        "batch_size": args.batch,
        "microbatches": 1,
        "max_new_tokens": _TOKENS,
        "reward.name": "cider",
        "reward.samples": args.captions,
        "reward.kl": args.kl,
        "optimizer.learning_rate": 1e-4,
    }
    config = load("demo", [f"--config.{name}={value}" for name, value in options.items()])
    prepared = prepare(Setup(config))
    ask = start_trl(args, prepared, folder) if args.trl_python else None
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
    if ask:
        seconds["trl"] = []
    for number in range(2 * (args.steps + _COMPILING)):
        batch = next(batches)
        began = time.perf_counter()
        if number % 2:
            batch, _ = rewarded.batch(state, batch, batches, number)
        drawn = time.perf_counter()
        state, metrics = step_of(state, batch)
        jax.block_until_ready(metrics)
        ended = time.perf_counter()
        peer = ask() if ask and number % 2 else 0.0
        if number >= 2 * _COMPILING:
            seconds["self-critical" if number % 2 else "supervised"].append(ended - began)
            if number % 2:
                seconds["drawing"].append(drawn - began)
                if ask:
                    seconds["trl"].append(peer)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    for name, each in median.items():
        print(f"{name:<13} {1000 * each:8.0f} ms a step of {args.batch} images")
    print(f"self-critical / supervised: {median['self-critical'] / median['supervised']:.2f}")
    if ask:
        print(f"samples a second, ours / trl: {median['trl'] / median['self-critical']:.2f}")


def start_trl(args: argparse.Namespace, prepared: Prepared, folder: Path) -> Callable[[], float]:
    """Exports what the peer needs and starts it; the result makes a step: seconds."""
    tokenizer = prepared.tokenizer.serialized()
    model = huggingface.export(
        prepared.params, prepared.model, folder / "model", tokenizer=tokenizer
    )
    (model / "tokenizer.json").write_text(json.dumps(tokenizer_json(tokenizer)), "utf-8")
    (folder / "Images").symlink_to(next(Path(prepared.workdir).glob("scenes-*/Images")))
    sizes = (args.batch, args.captions, _TOKENS, args.steps + _COMPILING)
    command = [args.trl_python, str(Path(__file__).with_name("trl_step.py")), str(folder)]
    process = subprocess.Popen(
        [*command, *map(str, sizes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin and stdout
    if stdout.readline() != "ready\n":
        raise SystemExit(f"{' '.join(command)} failed: see above")

    def ask() -> float:
        print("step", file=stdin, flush=True)
        return float(stdout.readline())

    return ask


if __name__ == "__main__":
    main()
