"""Trains a small codec of masks in the form of vae-oid.npz, to try `task=segment` with.

    python benchmarks/train_mask_codec.py vae-drawn.npz

It knows the shapes of drawn things alone; that of gs://big_vision/paligemma/vae-oid.npz was trained
on Open Images. It prints the mean IoU of masks of held-out things with themselves, written as text
and read again by `MaskCodec`. Target: above 0.9.

The VQ-VAE is that of arXiv 1711.00937: gradients pass straight through the nearest code, and the
codebook follows running means. A code that nothing is near to starts again at an encoder's output.
"""

import argparse
import random
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from paligemma_lib.regions import MaskCodec, parse_regions, region_masks, region_of, write_regions
from paligemma_lib.regions.mask_codec import CODEBOOK
from paligemma_lib.regions.region_masks import box_and_pixels
from paligemma_lib.sample_data import compose
from paligemma_lib.sample_data.drawing import draw_masks

SCENES, STEPS = 1500, 800
CHANNELS, WIDTH, BATCH = 32, 16, 64  # of most layers; of the codebook; masks in a step
DOUBLING = (32, 32, 16, 8, 8)  # channels before, between and behind the layers that double the size
COMMITMENT, DECAY, DEAD = 0.25, 0.99, 0.05  # DEAD: a code's running number of uses in a step
BOOK = "_vq_vae._embedding"

Arrays = dict[str, jax.Array]


def masks_of(seed: int, scenes: int) -> list[np.ndarray]:
    """Returns bool[H, W] of each thing in so many scenes."""
    return [
        mask
        for index in range(scenes)
        for mask in draw_masks(compose(seed, index), random.Random(f"{seed}/{index}")).values()
    ]


def initial(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns arrays with the published file's names and layouts, and random values."""
    made = {BOOK: rng.normal(size=(CODEBOOK, WIDTH))}

    def layer(name: str, ends: tuple[int, int], side: int, out: int, inputs: int) -> None:
        made[f"{name}.weight"] = (2 / inputs) ** 0.5 * rng.normal(size=(*ends, side, side))
        made[f"{name}.bias"] = np.zeros(out)

    for place, before in zip((0, 2, 4, 6), (1, CHANNELS, CHANNELS, CHANNELS), strict=True):
        layer(f"encoder.{place}", (CHANNELS, before), 4, CHANNELS, 16 * before)
    for block in ("encoder.8", "encoder.9", "decoder.2", "decoder.3"):
        for place, side in ((0, 3), (2, 3), (4, 1)):
            layer(f"{block}.net.{place}", (CHANNELS,) * 2, side, CHANNELS, 16 * CHANNELS)
    layer("encoder.10", (WIDTH, CHANNELS), 1, WIDTH, CHANNELS)
    layer("decoder.0", (CHANNELS, WIDTH), 1, CHANNELS, WIDTH)
    for n in range(4):  # transposed: in, out; an output has 2 x 2 of the 4 x 4 as inputs
        layer(f"decoder.{4 + 2 * n}", DOUBLING[n : n + 2], 4, DOUBLING[n + 1], 4 * DOUBLING[n])
    layer("decoder.12", (1, DOUBLING[-1]), 1, 1, DOUBLING[-1])
    return {name: array.astype(np.float32) for name, array in made.items()}


def conv(arrays: Arrays, layer: str, x: jax.Array, stride: int = 1, zeros: int = 0) -> jax.Array:
    """Convolves [N, H, W, C]; with `zeros`, transposed, as PyTorch does."""
    weight = arrays[f"{layer}.weight"]
    padding = 2 if zeros else (weight.shape[2] - 1) // 2
    if zeros:  # the kernel turned around, over x with zeros in between
        weight = weight[:, :, ::-1, ::-1].swapaxes(0, 1)
    return arrays[f"{layer}.bias"] + jax.lax.conv_general_dilated(
        x, weight, (stride, stride), [(padding, padding)] * 2, lhs_dilation=(1 + zeros,) * 2,
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
    )  # fmt: skip


def residual(arrays: Arrays, block: str, x: jax.Array) -> jax.Array:
    inner = jax.nn.relu(conv(arrays, f"{block}.net.0", x))
    return x + conv(arrays, f"{block}.net.4", jax.nn.relu(conv(arrays, f"{block}.net.2", inner)))


def encoded(arrays: Arrays, masks: jax.Array) -> jax.Array:
    """Returns float32[N, 4, 4, WIDTH] of float32[N, 64, 64], 0 to 1."""
    x = 2 * masks[..., None] - 1
    for place in (0, 2, 4, 6):
        x = jax.nn.relu(conv(arrays, f"encoder.{place}", x, stride=2))
    x = residual(arrays, "encoder.9", residual(arrays, "encoder.8", x))
    return conv(arrays, "encoder.10", x)


def decoded(arrays: Arrays, x: jax.Array) -> jax.Array:
    """Returns logits float32[N, 64, 64] of float32[N, 4, 4, WIDTH]."""
    x = jax.nn.relu(conv(arrays, "decoder.0", x))
    x = residual(arrays, "decoder.3", residual(arrays, "decoder.2", x))
    for place in (4, 6, 8, 10):
        x = jax.nn.relu(conv(arrays, f"decoder.{place}", x, zeros=1))
    return conv(arrays, "decoder.12", x)[..., 0]


def loss(arrays: Arrays, book: jax.Array, masks: jax.Array) -> tuple[jax.Array, Any]:
    x = encoded(arrays, masks)
    flat = x.reshape(-1, WIDTH)
    nearest = jnp.argmin((book**2).sum(1) - 2 * flat @ book.T, axis=1)
    chosen = book[nearest].reshape(x.shape)
    logits = decoded(arrays, x + jax.lax.stop_gradient(chosen - x))
    far = COMMITMENT * ((x - chosen) ** 2).mean()
    return optax.sigmoid_binary_cross_entropy(logits, masks).mean() + far, (flat, nearest)


def train(masks: np.ndarray, steps: int, rng: np.random.Generator) -> Arrays:
    """Returns the arrays after so many steps on masks float32[N, 64, 64]."""
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps, 0.02))

    @jax.jit
    def step(arrays: Arrays, moments: Any, state: Arrays, masks: jax.Array, key: jax.Array) -> Any:
        (value, (flat, nearest)), slope = jax.value_and_grad(loss, has_aux=True)(
            arrays, state[BOOK], masks
        )
        change, moments = optimizer.update(slope, moments)
        used = jax.nn.one_hot(nearest, CODEBOOK)
        uses = DECAY * state["uses"] + (1 - DECAY) * used.sum(0)
        sums = DECAY * state["sums"] + (1 - DECAY) * used.T @ flat
        fresh = jax.random.choice(key, flat, (CODEBOOK,))
        sums = jnp.where((uses < DEAD)[:, None], fresh, sums)
        uses = jnp.where(uses < DEAD, 1, uses)
        state = {BOOK: sums / uses[:, None], "uses": uses, "sums": sums}
        return optax.apply_updates(arrays, change), moments, state, value

    arrays = initial(rng)
    book = arrays.pop(BOOK)
    moments, state = optimizer.init(arrays), {BOOK: book, "uses": np.ones(CODEBOOK), "sums": book}
    for n in range(steps):
        chosen = masks[rng.integers(len(masks), size=BATCH)]
        arrays, moments, state, value = step(arrays, moments, state, chosen, jax.random.key(n))
        if n % 100 == 99:
            print(f"step {n + 1:,}: loss {value:.4f}")
    return {**arrays, BOOK: state[BOOK]}


def iou(codec: MaskCodec, mask: np.ndarray) -> float:
    """Returns the IoU of a mask bool[H, W] with itself, written and read again."""
    regions = parse_regions(write_regions([region_of(mask, codec, "thing")]))
    (again,) = region_masks(regions, codec, height=mask.shape[0], width=mask.shape[1])
    return float((mask & again).sum() / (mask | again).sum())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", help="the codec's .npz file")
    args = parser.parse_args()
    start = time.monotonic()
    things = np.stack([box_and_pixels(each, "thing")[1] for each in masks_of(0, SCENES)])
    trained = train(things, STEPS, np.random.default_rng(0))
    np.savez(args.out, **{name: np.asarray(array) for name, array in trained.items()})
    codec = MaskCodec(np.load(args.out, allow_pickle=False))
    found = [iou(codec, mask) for mask in masks_of(1, 100)]
    minutes = (time.monotonic() - start) / 60
    print(f"{minutes:.0f} minutes; mean IoU of {len(found)} held-out masks: {np.mean(found):.3f}")
