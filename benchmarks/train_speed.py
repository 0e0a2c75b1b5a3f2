"""How fast a training step is and what memory it takes, next to big_vision's and Hugging Face's.

    PYTHONPATH=path/to/big_vision python benchmarks/train_speed.py FOLDER TOKENIZER \\
        --torch-python PYTHON

All start from the same parameters at a size between the tiny and the real models (93.7 million, as
model_forward.py), train the language model's attention by plain SGD in float32, and read images
of FOLDER (captions.txt and Images/) at 256 image tokens and 128 text positions. Ours packs the five
captions of an image behind it; the peers take one caption with its image as an example. A step
has 8 examples. big_vision runs in this process, with the step of its fine-tuning notebook; PYTHON
has torch and transformers, and runs in a process of its own. They take turns, and the medians
count. What is absent is not compared.

First each makes one step from the same ten captions of two images. All must change the
parameters alike: for SGD that says that gradients are equal. big_vision averages over the tokens
of a caption and then over captions, as our weights do; transformers averages over all tokens, and
next to it ours weighs tokens alike. Memory is arguments and temporaries, as XLA counts them.
Targets: 5 times the captions/s of big_vision and 3.5 times those of Hugging Face; 0.8 of
big_vision's memory at as many captions a step, 0.6 with microbatches; 0.85 of the rate of a matrix
product that is measured between the rounds, by the FLOPs that the mathematics needs.
"""

import argparse
import dataclasses
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from step_rates import BATCH, report_rates
from transformers_step import CHECK_RATE, RATE

TEXT = 128
TOLERANCE = 1e-3

Batch = dict[str, np.ndarray]


def start_peer(python: str, folder: str, params, config, batches: Mapping[str, Batch]) -> Callable:
    """Exports what it needs and starts the peer; the result makes a step: seconds."""
    from paligemma_lib.checkpoint import huggingface

    huggingface.export(params, config, f"{folder}/model")
    for name, batch in batches.items():
        np.savez(f"{folder}/{name}.npz", **batch)
    command = [python, str(Path(__file__).with_name("transformers_step.py")), folder]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stdin, stdout = process.stdin, process.stdout
    assert stdin and stdout
    if stdout.readline() != "ready\n":
        raise SystemExit(f"{' '.join(command)} failed: see above")

    def ask(name: str) -> float:
        print(name, file=stdin, flush=True)
        return float(stdout.readline())

    return ask


def notebook_step(model):
    """The reference's step: parameters, loss = step(parameters, batch, learning rate)."""
    import jax
    import jax.numpy as jnp
    from big_vision.utils import tree_map_with_names

    def update(params, batch, rate):
        text, suffix = batch["text"], (batch["segment"] > 0).astype(jnp.int32)

        def mean_over_captions(params):
            logits, _ = model.apply(
                {"params": params}, batch["image"], text[:, :-1], suffix[:, :-1], train=True
            )
            target = jax.nn.one_hot(text[:, 1:], logits.shape[-1])
            nll = -jnp.sum(jax.nn.log_softmax(logits) * target, axis=-1)
            counts = suffix[:, 1:]
            return jnp.mean(jnp.sum(nll * counts, axis=-1) / jnp.sum(counts, axis=-1))

        def change(name, param, gradient):
            return param - rate * gradient if name.startswith("llm/layers/attn/") else param

        loss, gradients = jax.value_and_grad(mean_over_captions)(params)
        return tree_map_with_names(change, params, gradients), loss

    return jax.jit(update, donate_argnums=0)


def packed_batch(folder: str, tokenizer: str, vocab_size: int) -> Batch:
    """Some images with all their captions; ids that a small model lacks become ones it has."""
    import paligemma_lib as pg

    batches = pg.data.train_batches(
        pg.data.from_folder(folder),
        pg.tokenizer.load(tokenizer),
        image_size=224,
        text_len=TEXT,
        batch_size=BATCH,
        seed=0,
    )
    batch = dict(next(iter(batches)))
    half = vocab_size // 2
    text = batch["text"]
    batch["text"] = np.where(text < vocab_size, text, half + text % half).astype(np.int32)
    return batch


def separated(packed: Batch, captions: int) -> Batch:
    """One example for each of the first so many captions of every image."""
    from paligemma_lib.data import pack

    examples = []
    rows = (packed[key] for key in ("image", "text", "segment"))
    for image, text, segment in zip(*rows, strict=True):
        for k in range(1, captions + 1):
            row = pack(text[segment == 0], [text[segment == k]], TEXT)
            examples.append({"image": image, **row})
    return {key: np.stack([each[key] for each in examples]) for key in examples[0]}


def report_difference(name: str, start, ours, theirs) -> None:
    """How far two steps end from each other, as a share of how far they went."""
    difference = distance = 0.0
    for key, mine in ours.items():
        difference += np.sum(np.square((mine - np.asarray(theirs[key])).astype(np.float64)))
        distance += np.sum(np.square((mine - start[key]).astype(np.float64)))
    apart = np.sqrt(difference / distance)
    print(f"gradient: differs from {name}'s by {apart:.0e} of its length")
    if not apart < TOLERANCE:
        raise SystemExit(f"that is more than {TOLERANCE:.0e}: the steps are not comparable")


def memory(jitted, *arguments) -> float:
    """MiB of arguments and temporaries."""
    analysis = jitted.lower(*arguments).compile().memory_analysis()
    return (analysis.argument_size_in_bytes + analysis.temp_size_in_bytes) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("tokenizer")
    parser.add_argument("--torch-python", help="interpreter with torch and transformers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--remat", default="dots", help="what ours keeps, see PaliGemmaConfig")
    args = parser.parse_args()

    import jax
    from accelerator import needed_flops
    from flax.traverse_util import flatten_dict
    from model_forward import CONFIG, big_vision_model

    from paligemma_lib import checkpoint, model, sharding, train

    config = dataclasses.replace(CONFIG, remat=args.remat)
    mesh = sharding.make_mesh()
    start = jax.device_get(jax.jit(model.init, static_argnums=0)(config, jax.random.key(0)))
    flat = flatten_dict(start, sep="/")
    packed = packed_batch(args.folder, args.tokenizer, config.language.vocab_size)
    two = {key: value[:2] for key, value in packed.items()}
    single, check = separated(packed, 1), separated(two, 5)

    def optimizer(rate: float) -> train.Optimizer:
        return train.make_optimizer(
            "sgd", learning_rate=rate, total_steps=1, schedule="constant", clip_norm=None
        )

    def our_step(rate: float = RATE, microbatches: int = 1):
        return train.make_train_step(config, optimizer(rate), mesh=mesh, microbatches=microbatches)

    def our_state() -> train.TrainState:
        params = jax.device_put(start, sharding.replicated(mesh))
        return train.init_state(config, params, optimizer(RATE), trainable="attention", mesh=mesh)

    check_step = our_step(CHECK_RATE)

    def after_check(weight: np.ndarray) -> dict[str, np.ndarray]:
        state, _ = check_step(our_state(), two | {"loss_weight": weight.astype(np.float32)})
        return {name: np.asarray(piece) for name, (piece,) in state.trained.items()}

    def arrays_of(batch: Batch) -> dict[str, jax.Array]:
        keys = ("image", "text", "segment", "position", "loss_weight")
        return sharding.put_batch(mesh, {key: batch[key] for key in keys})

    def our_memory(batch: Batch, microbatches: int) -> float:
        state = vars(our_state())
        changing = {name: value for name, value in state.items() if name != "frozen"}
        with jax.set_mesh(mesh):
            step = our_step(microbatches=microbatches)
            return memory(step.jitted, state["frozen"], changing, arrays_of(batch))

    def timed(step: Callable, state, *arguments) -> Callable[[], float]:
        def run() -> float:
            nonlocal state
            begin = time.perf_counter()
            state, _ = jax.block_until_ready(step(state, *arguments))
            return time.perf_counter() - begin

        return run

    runs, needed = {}, {}
    for name, batch in (("ours", packed), ("ours, one caption an image", single)):
        runs[name] = timed(our_step(), our_state(), batch)
        supervised = np.count_nonzero(batch["loss_weight"])
        needed[name] = needed_flops.of_step(
            config, optimizer(RATE), mesh, our_state(), arrays_of(batch), supervised
        )
    if (reference := big_vision_model()) is not None:
        step = notebook_step(reference)
        changed, _ = step(jax.device_put(start), check, CHECK_RATE)
        alike = after_check(two["loss_weight"])
        report_difference("big_vision", flat, alike, flatten_dict(changed, sep="/"))
        for batch, examples in ((two, check), (packed, separated(packed, 5))):
            theirs = memory(step, start, examples, RATE)
            print(f"{len(examples['text'])} captions a step: big_vision takes {theirs:.0f} MiB")
            for parts in sorted({1, 2, len(batch["text"])}):
                mine = our_memory(batch, parts)
                print(f"  ours in {parts} part(s) {mine:.0f} MiB, {mine / theirs:.2f} of it")
        runs["big_vision"] = timed(step, jax.device_put(start), single, RATE)
    with tempfile.TemporaryDirectory() as folder:
        if args.torch_python:
            batches = {"check": check, "single": single}
            ask = start_peer(args.torch_python, folder, start, config, batches)
            ask("check")
            changed = checkpoint.load_params(f"{folder}/changed", config)
            alike = after_check(two["segment"] > 0)
            report_difference("transformers", flat, alike, flatten_dict(changed, sep="/"))
            runs["transformers"] = lambda: ask("single")
        captions = len(check["text"]) // 2 * BATCH
        report_rates(runs, args.rounds, packed_captions=captions, needed=needed)


if __name__ == "__main__":
    main()
