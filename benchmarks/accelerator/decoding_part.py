"""Captions of 20 tokens by PaliGemma 3B at 224 pixels in bfloat16: greedy, and beams of 4.

None may end before. What the prompt takes is measured by itself, so that each token has its own
time; against it stand the bytes that a token must read, at the rate at which this device copies.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from accelerator import needed_flops
from accelerator.measuring import Part, copy_rate, is_out_of_memory, product_rate, timed
from accelerator.real_models import PROMPT, model_of, random_params
from paligemma_lib import decode
from paligemma_lib.model.variants import PaliGemmaConfig

NEW = 20
BATCHES = (1, 8, 32)


def measure(part: Part, config: PaliGemmaConfig, params: Any, rows: int, copying: float) -> None:
    """Greedy and beams for so many images at once."""
    side, vocab = config.vision.image_size, config.language.vocab_size
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (rows, side, side, 3), np.uint8))
    prompt, length = decode.pad_prompts([[token % vocab for token in PROMPT]] * rows)

    def start(sampler: Any) -> decode.State:
        return decode.prefill(
            config, params, images, prompt, length,
            sampler=sampler, max_new_tokens=NEW, min_new_tokens=NEW - 1,
        )  # fmt: skip

    flops = needed_flops.of_prompt(config, params, images, prompt, length)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params["llm"]))
    for name, sampler in (("greedy", decode.Greedy()), ("beams of 4", decode.Beam(4, nbest=1))):
        what = f"{name}, batch {rows}"
        reading = timed(lambda s=sampler: start(s), rounds=5)
        whole = timed(lambda s=sampler: decode.extend(config, params, start(s), NEW), rounds=5)
        token = max(whole - reading, 1e-9) / (NEW - 1)
        state = start(sampler)
        read = weights + sum(leaf.nbytes for leaf in (*state.prompt.cache, *state.cache))
        part.emit(f"{what}: captions", rows / whole, "captions/s")
        part.emit(f"{what}: tokens", rows * NEW / whole, "tokens/s")
        part.emit(f"{what}: a token", 1e3 * token, "ms")
        part.emit(f"{what}: bandwidth of a token", read / token / copying, "of copy rate")
        if name == "greedy":
            part.emit(f"prompt, batch {rows}", 1e3 * reading, "ms", "image and first token too")
            part.emit(f"prompt, batch {rows}: needed FLOPs", flops / reading / 1e12, "TFLOP/s")


def main() -> None:
    part = Part.of_command_line()
    copying = copy_rate(part.dry_run)
    part.emit("copy rate", copying / 1e9, "GB/s", "read and written")
    part.emit("product rate", product_rate(part.dry_run) / 1e12, "TFLOP/s")
    config = model_of("paligemma_3b", part.dry_run, dtype="bfloat16")
    params = random_params(config, lambda name: "bfloat16")
    for rows in BATCHES[: 2 if part.dry_run else None]:
        try:
            measure(part, config, params, rows, copying)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            part.emit(f"batch {rows}: out of memory", None)


if __name__ == "__main__":
    main()
