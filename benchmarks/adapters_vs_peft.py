"""How fast an adapter trains, next to peft on Hugging Face's PaliGemma, at equal gradients.

    python benchmarks/adapters_vs_peft.py FOLDER TOKENIZER --torch-python PYTHON

Both start from the same parameters and the same LoRA of rank 16 beside the language model's
attention and MLP (93.7 million parameters, as model_forward.py), train it by plain SGD in float32,
and read images of FOLDER (captions.txt and Images/) at 256 image tokens and 128 text positions.
Ours packs the five captions of an image behind it; peft takes one caption with its image as an
example. A step has 8 examples. PYTHON has torch, transformers and peft, and runs in a process of
its own. They take turns, and the medians count.

First each makes one step from the same ten captions of two images. Both must change the adapter
alike: for SGD that says that gradients are equal. Target: 5 times the captions/s of peft.
"""

import argparse
import tempfile
import time

import numpy as np
from step_rates import BATCH, report_rates
from train_speed import packed_batch, report_difference, separated, start_peer
from transformers_step import ADAPTER_CHECK_RATE, RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("tokenizer")
    parser.add_argument("--torch-python", required=True, help="with torch, transformers and peft")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    import jax
    from model_forward import CONFIG as config

    from paligemma_lib import model, sharding, train
    from paligemma_lib.checkpoint.adapters import read_adapter, write_adapter
    from paligemma_lib.model.adapter_params import LowRank, init_adapters, with_adapters

    mesh = sharding.make_mesh()
    start = jax.device_get(jax.jit(model.init, static_argnums=0)(config, jax.random.key(0)))
    options = LowRank(16, targets=("attention", "mlp"))
    adapter = {
        name: np.asarray(array)
        for name, array in init_adapters(start, options, jax.random.key(1)).items()
    }
    rng = np.random.default_rng(0)
    for name, array in adapter.items():
        if name.endswith("/b"):  # zeros would leave the other half without gradients
            adapter[name] = rng.normal(0, 0.02, array.shape).astype(np.float32)
    packed = packed_batch(args.folder, args.tokenizer, config.language.vocab_size)
    two = {key: value[:2] for key, value in packed.items()}
    check, single = separated(two, 5), separated(packed, 1)

    def made(rate: float):
        optimizer = train.make_optimizer(
            "sgd", learning_rate=rate, total_steps=1, schedule="constant", clip_norm=None
        )
        params = jax.device_put(with_adapters(start, adapter), sharding.replicated(mesh))
        state = train.init_state(config, params, optimizer, trainable="lora", mesh=mesh)
        return train.make_train_step(config, optimizer, mesh=mesh), state

    def timed(batch):
        step, state = made(RATE)

        def run() -> float:
            nonlocal state
            begin = time.perf_counter()
            state, _ = jax.block_until_ready(step(state, batch))
            return time.perf_counter() - begin

        return run

    with tempfile.TemporaryDirectory() as folder:
        write_adapter(f"{folder}/adapter", adapter, base="model", config=config)
        batches = {"check": check, "single": single}
        ask = start_peer(args.torch_python, folder, start, config, batches)
        ask("check")
        changed = read_adapter(f"{folder}/changed", config)
        step, state = made(ADAPTER_CHECK_RATE)
        weight = (two["segment"] > 0).astype(np.float32)  # transformers weighs all tokens alike
        state, _ = step(state, two | {"loss_weight": weight})
        ours = {name: np.asarray(part) for name, (part,) in state.trained.items()}
        report_difference("peft", adapter, ours, changed)
        runs = {"ours": timed(packed), "ours, one caption an image": timed(single)}
        runs["peft"] = lambda: ask("single")
        report_rates(runs, args.rounds, packed_captions=len(check["text"]) // 2 * BATCH)


if __name__ == "__main__":
    main()
