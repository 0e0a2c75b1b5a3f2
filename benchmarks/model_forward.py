"""How fast is one forward pass, next to big_vision's on the same parameters?

    PYTHONPATH=path/to/big_vision python benchmarks/model_forward.py

Both run by turns in one process, jitted, in float32, at a size between the tiny and the real
models (93.7 million parameters). Without big_vision our own times are printed alone.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib import model
from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig

CONFIG = PaliGemmaConfig(
    SiglipConfig(image_size=224, width=384, depth=12, mlp_dim=1536, num_heads=6),
    GemmaConfig(
        width=512,
        depth=8,
        mlp_dim=4096,
        num_heads=8,
        num_kv_heads=1,
        head_dim=64,
        vocab_size=32_768,
    ),
)
PREFIX, SUFFIX = 4, 16


def big_vision_model():
    """The reference at the same sizes, or None where it cannot be imported."""
    try:
        from big_vision.models.ppp import gemma
        from big_vision.models.proj.paligemma import paligemma
        from ml_collections import ConfigDict
    except ImportError as error:
        print(f"big_vision: not compared ({error})")
        return None
    language, vision = CONFIG.language, CONFIG.vision
    sizes = {
        "variant": "mini",
        "width": language.width,
        "depth": language.depth,
        "mlp_dim": language.mlp_dim,
        "num_heads": language.num_heads,
        "num_kv_heads": language.num_kv_heads,
        "head_dim": language.head_dim,
        "norm_eps": 1e-6,
        "vocab_size": language.vocab_size,
    }
    gemma.get_config = lambda variant: ConfigDict(sizes)
    image = {
        "patch_size": (vision.patch_size, vision.patch_size),
        "width": vision.width,
        "depth": vision.depth,
        "mlp_dim": vision.mlp_dim,
        "num_heads": vision.num_heads,
        "pool_type": "none",
        "scan": True,
    }
    return paligemma.Model(llm={"variant": "mini"}, img=image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8, help="images")
    parser.add_argument("--text", type=int, default=128, help="text positions")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()

    params = jax.jit(model.init, static_argnums=0)(CONFIG, jax.random.key(0))
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (args.batch, 224, 224, 3)).astype(np.float32)
    text = rng.integers(4, CONFIG.language.vocab_size, (args.batch, args.text)).astype(np.int32)
    kind = np.repeat([0, 1, -1], [PREFIX, SUFFIX, args.text - PREFIX - SUFFIX])
    segment = np.tile(kind.astype(np.int32), (args.batch, 1))
    position = np.tile(np.arange(args.text, dtype=np.int32), (args.batch, 1))
    supervised = np.tile(np.arange(PREFIX - 1, PREFIX + SUFFIX - 1), (args.batch, 1))

    @jax.jit
    def everywhere(params):
        hidden = model.hidden_states(CONFIG, params, image, text, segment, position)
        return model.logits(CONFIG, params, hidden)

    @jax.jit
    def where_supervised(params):
        hidden = model.hidden_states(CONFIG, params, image, text, segment, position, supervised)
        return model.logits(CONFIG, params, hidden)

    runs = {"ours": everywhere, "ours, logits of supervised positions alone": where_supervised}
    if (theirs := big_vision_model()) is not None:
        mask_ar = (segment > 0).astype(np.int32)
        runs["big_vision"] = jax.jit(
            lambda params: theirs.apply({"params": params}, image, text, mask_ar)[0]
        )
    outputs = {name: jax.block_until_ready(run(params)) for name, run in runs.items()}  # compiles
    if "big_vision" in outputs:
        difference = outputs["big_vision"][:, supervised[0]] - outputs["ours"][:, supervised[0]]
        print(f"largest difference of supervised logits: {jnp.abs(difference).max():.1e}")

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.turns):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(params))
            seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f"{name}: {statistics.median(times):.2f} s, {min(times):.2f} at best")
    for name in runs:
        if "big_vision" in seconds and name != "big_vision":
            ratios = [b / a for a, b in zip(seconds[name], seconds["big_vision"], strict=True)]
            print(f"{name}: {statistics.median(ratios):.2f} times as fast as big_vision")


if __name__ == "__main__":
    main()
