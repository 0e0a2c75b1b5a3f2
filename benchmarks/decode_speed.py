"""How fast captions are written, next to big_vision's and Hugging Face's decoders.

    PYTHONPATH=path/to/big_vision python benchmarks/decode_speed.py --torch-python PYTHON

All take the same parameters at a size between the tiny and the real models (93.7 million, as
model_forward.py), 8 images, the prompt `caption en`, 20 new tokens, and none may end before. They
take turns: greedy, beams of 4, and for ours the prompt alone. big_vision runs in this process, with
a prompt of 4 positions and with one padded to 128, as its notebook does. PYTHON has torch and
transformers, and runs in a process of its own. What is absent is not compared.
Targets: 1.3 times big_vision's greedy decoding with the short prompt and 2 times with the padded
one, 1.5 times its beam search; not slower than Hugging Face; 0.85 of the rate of a matrix product
that is measured between the rounds, by the FLOPs that the mathematics needs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

BATCH, NEW, PROMPT = 8, 20, [2, 21209, 659, 108]


def peer(folder: str, images: str) -> None:
    """Answers each number of beams with seconds; runs in the other environment."""
    import torch
    import transformers

    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(folder).eval()
    pixels = torch.from_numpy(np.load(images)).permute(0, 3, 1, 2).contiguous()
    vocabulary = model.config.image_token_id
    ids = torch.tensor([[vocabulary] * 256 + PROMPT] * BATCH)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        out = model.generate(
            input_ids=ids,
            pixel_values=pixels,
            attention_mask=torch.ones_like(ids),
            token_type_ids=torch.zeros_like(ids),
            do_sample=False,
            num_beams=int(line),
            length_penalty=0.0,
            min_new_tokens=NEW,
            max_new_tokens=NEW,
            suppress_tokens=list(range(vocabulary, model.config.text_config.vocab_size)),
        )
        print(time.perf_counter() - start, flush=True)
        print(out[:, ids.shape[1] :].tolist(), flush=True)


def ask_peer(python: str, params, config, images: np.ndarray) -> Callable:
    """Exports the model and starts the peer; the result runs it once: seconds, tokens."""
    import ast

    from paligemma_lib.checkpoint import huggingface

    folder = tempfile.mkdtemp()
    huggingface.export(params, config, os.path.join(folder, "model"))
    np.save(os.path.join(folder, "images.npy"), images)
    command = [python, __file__, "--peer", folder]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{' '.join(command)} failed: see above")

    def ask(beams: int) -> tuple[float, list]:
        print(beams, file=process.stdin, flush=True)
        return float(process.stdout.readline()), ast.literal_eval(process.stdout.readline())

    return ask


def ask_big_vision(params, images: np.ndarray) -> dict[str, Callable] | None:
    """Runs of the reference by name: greedy with both prompts, beams."""
    from model_forward import big_vision_model

    if (model := big_vision_model()) is None:
        return None
    import jax
    import jax.numpy as jnp
    from big_vision.trainers.proj.paligemma import predict_fns
    from flax.core import FrozenDict

    model = model.clone(img=FrozenDict(model.img), llm=FrozenDict(model.llm))  # can be hashed

    # A random model's beams would end at once; so they search to the last position, as ours must.
    predict_fns._beam_early_stop = lambda state, mask, eos_token: jnp.zeros((), bool)
    functions = predict_fns.get_all(model)

    def run(name: str, positions: int, **options) -> np.ndarray:
        text = np.zeros((BATCH, positions), np.int32)
        text[:, : len(PROMPT)] = PROMPT
        batch = {
            "image": images,
            "text": text,
            "mask_input": np.tile(np.arange(positions) < len(PROMPT), (BATCH, 1)),
            "mask_ar": np.zeros((BATCH, positions), np.int32),
            "_mask": np.ones(BATCH, bool),
        }
        return np.asarray(
            functions[name](
                {"params": params},
                batch,
                devices=np.array(jax.devices()),
                max_decode_len=NEW,
                eos_token=1,
                **options,
            )
        )

    return {
        "big_vision, greedy": lambda: run("decode", len(PROMPT)),
        "big_vision, greedy, prompt padded to 128": lambda: run("decode", 128),
        "big_vision, beam 4": lambda: run("beam_decode", len(PROMPT), beam_size=4),
    }


def seconds(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="interpreter with torch and transformers")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.peer:
        return peer(os.path.join(args.peer, "model"), os.path.join(args.peer, "images.npy"))

    import jax
    from accelerator import needed_flops
    from accelerator.measuring import product_rate
    from model_forward import CONFIG

    from paligemma_lib import decode, model

    params = jax.jit(model.init, static_argnums=0)(CONFIG, jax.random.key(0))
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (BATCH, 224, 224, 3)).astype(np.float32)
    prompt, length = decode.pad_prompts([PROMPT] * BATCH)

    def start(sampler, positions=NEW):
        state = decode.prefill(
            CONFIG, params, images, prompt, length,
            sampler=sampler, max_new_tokens=positions, min_new_tokens=positions - 1,
        )  # fmt: skip
        return jax.block_until_ready(state)

    def ours(sampler, positions=NEW):
        state = decode.extend(CONFIG, params, start(sampler, positions), positions)
        return np.asarray(state.written.tokens)[:, 0]

    greedy, beam = decode.Greedy(), decode.Beam(4, nbest=1)
    runs: dict[str, Callable[[], np.ndarray]] = {
        "prefill": lambda: start(greedy),
        "greedy": lambda: ours(greedy),
        "beam 4": lambda: ours(beam),
        "greedy, 40 new tokens": lambda: ours(greedy, 2 * NEW),
    } | (ask_big_vision(params, images) or {})
    times: dict[str, list[float]] = {name: [] for name in runs}
    outputs = {name: run() for name, run in runs.items()}  # compiles
    if args.torch_python:
        ask = ask_peer(args.torch_python, jax.device_get(params), CONFIG, images)
        peers = {"transformers, greedy": 1, "transformers, beam 4": 4}
        for name, beams in peers.items():
            times[name], outputs[name] = [], np.array(ask(beams)[1])
    for name, tokens in outputs.items():
        kind = "beam 4" if "beam 4" in name else "greedy"
        if "," in name and "40" not in name and not ("big_vision" in name and kind == "beam 4"):
            same = np.mean(tokens[:, : NEW - 1] == outputs[kind][:, : NEW - 1])
            print(f"{name}: {same:.0%} of the tokens equal ours")

    source, target = np.ones((2, 1 << 26), np.float32)  # 256 MiB each
    bandwidth = rate = 0.0
    for _ in range(args.rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
        if args.torch_python:
            for name, beams in peers.items():
                times[name].append(ask(beams)[0])
        elapsed = min(seconds(lambda: np.copyto(target, source)) for _ in range(3))
        bandwidth = max(bandwidth, 2 * source.nbytes / elapsed)
        rate = max(rate, product_rate(False, "float32", 2048))
    for name, each in times.items():
        print(f"{name}: {statistics.median(each):.2f} s, {min(each):.2f} at best")
    for name, each in times.items():
        if "," in name and "40" not in name:
            mine = times["beam 4" if "beam 4" in name else "greedy"]
            ratio = statistics.median(b / a for a, b in zip(mine, each, strict=True))
            print(f"ours is {ratio:.2f} times as fast as {name}")

    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params["llm"]))
    prefill = min(times["prefill"])
    for name, sampler in (("greedy", greedy), ("beam 4", beam)):
        state = start(sampler)
        read = weights + sum(leaf.nbytes for leaf in (*state.prompt.cache, *state.cache))
        each = (min(times[name]) - prefill) / (NEW - 1)
        print(
            f"{name}: prefill is {prefill / min(times[name]):.0%}; a token takes {each * 1e3:.0f} "
            f"ms, {read / each / bandwidth:.0%} of the copy bandwidth of {bandwidth / 1e9:.1f} GB/s"
        )
    reading = needed_flops.of_prompt(CONFIG, params, images, prompt, length)
    writing = needed_flops.of_tokens(CONFIG, params, start(greedy), NEW - 1)
    for name, flops in {"prefill": reading, "greedy": reading + writing}.items():
        print(needed_flops.told(name, flops, statistics.median(times[name]), rate))
    more = min(times["greedy, 40 new tokens"]) - min(times["greedy"])
    print(f"20 tokens more: {more / 20 * 1e3:.0f} ms each")


if __name__ == "__main__":
    main()
