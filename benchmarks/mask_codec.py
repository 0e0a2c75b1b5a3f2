"""Trains a small codec of masks in the form of vae-oid.npz, to try `task=segment` with.

    python benchmarks/mask_codec.py vae-drawn.npz

It knows the shapes of drawn things alone. For photographs, take the published file, which was
trained on Open Images: gs://big_vision/paligemma/vae-oid.npz.

It prints the mean IoU of masks of held-out things with themselves, written as text and read again
by `MaskCodec`. Target: above 0.9.

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

from paligemma_lib.regions import (
    MaskCodec,
    parse_regions,
    region_masks,
    region_of,
    write_regions,
)
from paligemma_lib.regions.mask_codec import CODEBOOK
from paligemma_lib.regions.region_masks import box_and_pixels
from paligemma_lib.sample_data import compose
from paligemma_lib.sample_data.drawing import draw_masks

CHANNELS, WIDTH = 32, 16  # of all layers but the last ones; of the codebook
DECODED = (32, 32, 16, 8)  # channels of the layers that double the size
COMMITMENT, DECAY, DEAD = 0.25, 0.99, 0.05  # DEAD: a code's running number of uses in a batch
HELD_OUT = 1  # seed of the scenes that measure

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
    made = {"_vq_vae._embedding": rng.normal(size=(CODEBOOK, WIDTH))}

    def layer(name: str, ends: tuple[int, int], side: int, out: int, taps: int) -> None:
        made[f"{name}.weight"] = rng.normal(size=(*ends, side, side)) * (2 / taps) ** 0.5
        made[f"{name}.bias"] = np.zeros(out)

    for place, before in zip((0, 2, 4, 6), (1, *[CHANNELS] * 3), strict=True):
        layer(f"encoder.{place}", (CHANNELS, before), 4, CHANNELS, 16 * before)
    for block in ("encoder.8", "encoder.9", "decoder.2", "decoder.3"):
        for place, side in ((0, 3), (2, 3), (4, 1)):
            taps = side * side * CHANNELS * (1 if side == 3 else 16)  # a small change at first
            layer(f"{block}.net.{place}", (CHANNELS, CHANNELS), side, CHANNELS, taps)
    layer("encoder.10", (WIDTH, CHANNELS), 1, WIDTH, CHANNELS)
    layer("decoder.0", (CHANNELS, WIDTH), 1, CHANNELS, WIDTH)
    ends = zip((4, 6, 8, 10), (CHANNELS, *DECODED), DECODED, strict=False)
    for (
        place,
        before,
        after,
    ) in ends:  # transposed: in, out; each pixel is reached by 2 x 2 of 4 x 4
        layer(f"decoder.{place}", (before, after), 4, after, 4 * before)
    layer("decoder.12", (1, DECODED[-1]), 1, 1, DECODED[-1])
    return {name: array.astype(np.float32) for name, array in made.items()}


def conv(arrays: Arrays, layer: str, x: jax.Array, **how: Any) -> jax.Array:
    weight = how.pop("weight", arrays[f"{layer}.weight"])
    padding = how.pop("padding", (weight.shape[2] - 1) // 2)
    stride = how.pop("stride", 1)
    return arrays[f"{layer}.bias"] + jax.lax.conv_general_dilated(
        x, weight, (stride, stride), [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "OIHW", "NHWC"), **how,
    )  # fmt: skip


def residual(arrays: Arrays, block: str, x: jax.Array) -> jax.Array:
    inner = jax.nn.relu(conv(arrays, f"{block}.net.0", x))
    return x + conv(arrays, f"{block}.net.4", jax.nn.relu(conv(arrays, f"{block}.net.2", inner)))


def encoded(arrays: Arrays, masks: jax.Array) -> jax.Array:
    """Returns float32[N, 4, 4, WIDTH] of float32[N, 64, 64], 0 to 1."""
    x = 2 * masks[..., None] - 1
    for place in (0, 2, 4, 6):
        x = jax.nn.relu(conv(arrays, f"encoder.{place}", x, stride=2))
    for place in (8, 9):
        x = residual(arrays, f"encoder.{place}", x)
    return conv(arrays, "encoder.10", x)


def decoded(arrays: Arrays, x: jax.Array) -> jax.Array:
    """Returns logits float32[N, 64, 64] of float32[N, 4, 4, WIDTH]."""
    x = jax.nn.relu(conv(arrays, "decoder.0", x))
    for place in (2, 3):
        x = residual(arrays, f"decoder.{place}", x)
    for place in (4, 6, 8, 10):
        # PyTorch's transposed convolution: the kernel turned around, over x with zeros in between.
        weight = arrays[f"decoder.{place}.weight"][:, :, ::-1, ::-1].swapaxes(0, 1)
        x = conv(arrays, f"decoder.{place}", x, weight=weight, padding=2, lhs_dilation=(2, 2))
        x = jax.nn.relu(x)
    return conv(arrays, "decoder.12", x)[..., 0]


def train(masks: np.ndarray, steps: int, batch: int, rng: np.random.Generator) -> Arrays:
    """Returns the arrays after so many steps on masks float32[N, 64, 64]."""
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps, 0.02))
    book, rest = "_vq_vae._embedding", initial(rng)
    state = {book: rest.pop(book), "uses": np.ones(CODEBOOK, np.float32)}
    state["sums"] = state[book].copy()

    def loss(arrays: Arrays, book: jax.Array, masks: jax.Array) -> tuple[jax.Array, Any]:
        x = encoded(arrays, masks)
        flat = x.reshape(-1, WIDTH)
        nearest = jnp.argmin((book**2).sum(1) - 2 * flat @ book.T, axis=1)
        chosen = book[nearest].reshape(x.shape)
        logits = decoded(arrays, x + jax.lax.stop_gradient(chosen - x))
        commitment = COMMITMENT * ((x - chosen) ** 2).mean()
        return optax.sigmoid_binary_cross_entropy(logits, masks).mean() + commitment, (
            flat,
            nearest,
        )

    @jax.jit
    def step(arrays: Arrays, moments: Any, state: Any, masks: jax.Array, key: jax.Array) -> Any:
        (value, (flat, nearest)), slope = jax.value_and_grad(loss, has_aux=True)(
            arrays, state[book], masks
        )
        change, moments = optimizer.update(slope, moments)
        hot = jax.nn.one_hot(nearest, CODEBOOK)
        uses = DECAY * state["uses"] + (1 - DECAY) * hot.sum(0)
        sums = DECAY * state["sums"] + (1 - DECAY) * hot.T @ flat
        dead = uses < DEAD
        fresh = jax.random.choice(key, flat, (CODEBOOK,))
        uses = jnp.where(dead, 1, uses)
        sums = jnp.where(dead[:, None], fresh, sums)
        state = {book: sums / uses[:, None], "uses": uses, "sums": sums}
        return optax.apply_updates(arrays, change), moments, state, value

    moments = optimizer.init(rest)
    start = time.monotonic()
    for number in range(steps):
        chosen = masks[rng.integers(len(masks), size=batch)]
        key = jax.random.key(number)
        rest, moments, state, value = step(rest, moments, state, chosen, key)
        if number % 200 == 199:
            print(f"step {number + 1:,}: loss {value:.4f}, {time.monotonic() - start:.0f} s")
    return {**rest, book: state[book]}


def mean_iou(codec: MaskCodec, masks: list[np.ndarray]) -> float:
    """Returns the mean IoU of masks bool[H, W] with themselves, written and read again."""
    found = []
    for mask in masks:
        regions = parse_regions(write_regions([region_of(mask, codec, "thing")]))
        (again,) = region_masks(regions, codec, height=mask.shape[0], width=mask.shape[1])
        found.append((mask & again).sum() / (mask | again).sum())
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", help="the codec's .npz file")
    parser.add_argument("--scenes", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    start = time.monotonic()
    things = np.stack([box_and_pixels(each, "thing")[1] for each in masks_of(0, args.scenes)])
    print(f"{len(things):,} masks of drawn things in {time.monotonic() - start:.0f} s")
    arrays = train(things, args.steps, args.batch, np.random.default_rng(0))
    np.savez(args.out, **{name: np.asarray(array) for name, array in arrays.items()})
    held_out = masks_of(HELD_OUT, 100)
    iou = mean_iou(MaskCodec(np.load(args.out, allow_pickle=False)), held_out)
    print(f"mean IoU of {len(held_out)} held-out masks, written and read again: {iou:.3f}")


if __name__ == "__main__":
    main()
