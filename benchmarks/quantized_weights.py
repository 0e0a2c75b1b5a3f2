"""What weights in int8 and 4 bits cost and save, next to 16 bits: words, speed, memory.

    python benchmarks/quantized_weights.py quality --checkpoint C --data captions.csv
    python benchmarks/quantized_weights.py decoding
    python benchmarks/quantized_weights.py loading --folder /tmp
    python benchmarks/quantized_weights.py training [--topology v5e:1x1]

quality: mean over the supervised tokens of KL(full || quantised) between next-token distributions,
in nats, on captions of real images. Targets: int8 below 1e-3, nf4 below 0.03.
decoding: a token of greedy decoding, all kinds in turn, for `model_forward.py`'s model and for a
few layers of PaliGemma 3B's shape. Target: int8 not slower than bfloat16, on a CPU.
loading: the host's peak memory beyond the quantised parameters, of a synthetic checkpoint in
bfloat16. Target: 1 GiB.
training: XLA's own figure for a step with rank-16 adapters on all products of the language model,
nf4 below them, microbatches of one image. Targets: 3B with batch 8 4 GiB, 10B with batch 1 9 GiB,
28B 24 GiB. TPU topologies need libtpu; "cpu" compiles for this machine.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

KINDS = ("int8", "nf4")


def quality(args: argparse.Namespace) -> None:
    import functools

    import jax
    import jax.numpy as jnp

    import paligemma_lib as pg
    from paligemma_lib.data.sources import open_source

    full = pg.load(args.checkpoint)
    config = full.config
    batches = pg.data.eval_batches(
        open_source(args.data), full.tokenizer, image_size=config.vision.image_size,
        text_len=args.text_len, batch_size=8, lowercase=True,
    )  # fmt: skip

    @functools.partial(jax.jit, static_argnums=0)
    def log_probabilities(config: Any, params: Any, batch: Any) -> jax.Array:
        inputs = {key: batch[key] for key in ("image", "text", "segment", "position")}
        indices = pg.model.source_positions(batch["segment"])
        hidden = pg.model.hidden_states(config, params, **inputs, indices=indices)
        return jax.nn.log_softmax(pg.model.logits(config, params, hidden))

    @jax.jit
    def divergence(ours: jax.Array, theirs: jax.Array, weight: jax.Array) -> jax.Array:
        kl = jnp.sum(jnp.exp(ours) * (ours - theirs), axis=-1)
        return jnp.sum(jnp.where(weight > 0, kl, 0))

    kinds = {kind: pg.load(args.checkpoint, weights=kind).params for kind in KINDS}
    kinds["bfloat16"] = pg.load(args.checkpoint, dtype="bfloat16").params
    sums = dict.fromkeys(kinds, 0.0)
    tokens = 0
    for _, batch in zip(range(args.batches), batches, strict=False):
        arrays = {k: v for k, v in batch.items() if v.dtype.kind not in "SUO"}
        whole = log_probabilities(config, full.params, arrays)
        weight = batch["loss_weight"]
        tokens += int(np.count_nonzero(weight))
        for kind, params in kinds.items():
            other = log_probabilities(config, params, arrays)
            sums[kind] += float(divergence(whole, other, weight))
    size = {k: sum(leaf.nbytes for leaf in jax.tree.leaves(p)) for k, p in kinds.items()}
    for kind, total in sums.items():
        print(
            f"{kind}: {total / tokens:.2e} nats a token over {tokens:,} tokens; "
            f"{size[kind] / size['bfloat16']:.2f} of the bytes of bfloat16"
        )


def decoding(args: argparse.Namespace) -> None:
    import jax
    from accelerator.real_models import random_params
    from model_forward import CONFIG

    from paligemma_lib import decode, model
    from paligemma_lib.parameter_roles import role_of
    from paligemma_lib.quantized import quantize

    real = model.variants.paligemma_3b()
    few = dataclasses.replace(
        real,
        vision=dataclasses.replace(real.vision, depth=1),
        language=dataclasses.replace(real.language, depth=args.layers, vocab_size=32_768),
    )
    rng = np.random.default_rng(0)
    for name, config in (("mini", CONFIG), (f"3B, {args.layers} layers", few)):
        plain = random_params(config, lambda name: "bfloat16")

        def stored(kind: str, plain: Any = plain) -> Any:
            def leaf(path: Any, value: Any) -> Any:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                if kind == "bfloat16" or not role_of(name).is_matrix:
                    return jax.device_put(value)
                return jax.device_put(quantize(np.asarray(value), kind, "float32"))

            return jax.tree_util.tree_map_with_path(leaf, plain)

        size = config.vision.image_size
        images = rng.uniform(-1, 1, (1, size, size, 3)).astype(np.float32)
        prompt, length = decode.pad_prompts([[2, 21209, 659, 108]])
        new = 12
        params, states, times = {}, {}, {}
        for kind in ("bfloat16", *KINDS):
            params[kind], times[kind] = stored(kind), []
            states[kind] = decode.prefill(
                config, params[kind], images, prompt, length,
                max_new_tokens=new, min_new_tokens=new - 1,
            )  # fmt: skip
            jax.block_until_ready(decode.extend(config, params[kind], states[kind], new - 1))
        for _ in range(args.rounds):
            for kind in params:
                start = time.perf_counter()
                jax.block_until_ready(decode.extend(config, params[kind], states[kind], new - 1))
                times[kind].append((time.perf_counter() - start) / (new - 1))
        for kind, each in times.items():
            ratios = [a / b for a, b in zip(times["bfloat16"], each, strict=True)]
            print(
                f"{name}: {kind} {min(each) * 1e3:.0f} ms a token at best; "
                f"{statistics.median(ratios):.2f} times as fast as bfloat16"
            )


def loading(args: argparse.Namespace) -> None:
    from paligemma_lib import model

    real = getattr(model.variants, args.model)()
    config = dataclasses.replace(
        real,
        vision=dataclasses.replace(real.vision, depth=args.layers),
        language=dataclasses.replace(real.language, depth=args.layers),
        dtype="bfloat16",
    )
    path = os.path.join(args.folder, "quantized_weights.npz")
    if args.worker:
        return _load(path, config, args.worker)
    _write_checkpoint(path, config)
    try:
        for kind in KINDS:
            command = [sys.executable, *sys.argv, "--worker", kind]
            print(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip())
    finally:
        os.remove(path)


def _write_checkpoint(path: str, config: Any) -> None:
    import jax.numpy as jnp

    from paligemma_lib.checkpoint.matching import expected_shapes
    from paligemma_lib.checkpoint.npz import write_npz

    rng = np.random.default_rng(0)

    def rows(shape: tuple[int, ...]) -> Any:
        row = rng.normal(0, 0.02, shape[1:]).astype(jnp.bfloat16)[None]
        return (row for _ in range(shape[0]))

    with open(path, "wb") as file:
        write_npz(
            file,
            ((n, s, jnp.dtype("bfloat16"), rows(s)) for n, s in expected_shapes(config).items()),
        )


def _load(path: str, config: Any, kind: str) -> None:
    import jax

    from paligemma_lib import checkpoint
    from paligemma_lib.quantized import quantize

    jax.block_until_ready(jax.numpy.ones(3) + 1)
    quantize(np.ones((1, 1 << 15), np.float32), kind, "bfloat16")  # compiles
    before = _resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here
    start = time.perf_counter()
    params = checkpoint.load_params(path, config, dtype=kind)
    jax.block_until_ready(params)
    seconds = time.perf_counter() - start
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    extra = _resident("VmHWM") - before - held
    file = os.path.getsize(path)
    print(
        f"{kind}: {held / 2**30:.2f} GiB of parameters from {file / 2**30:.2f} GiB in "
        f"{seconds:.0f} s; the host held {extra / 2**30:.2f} GiB more at most"
    )


def _resident(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def training(args: argparse.Namespace) -> None:
    from quantized_training_memory import step_bytes

    for name, batch in (("paligemma_3b", 8), ("paligemma2_10b", 1), ("paligemma2_28b", 1)):
        if args.only in ("", name):
            print(step_bytes(name, batch, args.topology), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("quality", "decoding", "loading", "training"))
    parser.add_argument("--checkpoint", default="nano")
    parser.add_argument("--data", help="captions of images, in any form")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--text-len", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--model", default="paligemma_3b")
    parser.add_argument("--topology", default="v5e:1x1")
    parser.add_argument("--only", default="", help="one model of training")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    {"quality": quality, "decoding": decoding, "loading": loading, "training": training}[args.part](
        args
    )


if __name__ == "__main__":
    main()
