"""Trains the vision tower of a new small model on what each patch of a drawn scene shows.

    python examples/pretrain_tower.py           # writes workdir/tower
    paligemma finetune --config=pretrain_nano

PaliGemma begins with a tower that has learned to see, too. This one learns it in 40 minutes on two
CPU cores, from facts that are told of every patch: see `sample_data.patch_facts`. Each scene is
drawn once, while other steps are computed. The classifier on top is thrown away. What is saved is a
whole model, whose language model is new, and its tokenizer.
"""

import argparse
import functools
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tower_training

import paligemma_lib as pg
from paligemma_lib.model import paligemma, siglip, variants
from paligemma_lib.model.variants import PaliGemmaConfig, SiglipConfig
from paligemma_lib.runtime.atomic import atomic_write
from paligemma_lib.sample_data.patch_facts import CLASSES, FACTS, patch_facts
from paligemma_lib.sample_data.pretraining_scenes import PretrainingScenes, scene_of

FIRST, HELD_OUT = 20_000_000, 5_000_000  # scenes to train on from here, to measure on from here
FAINT = 0.3  # weight of patches without an object, and of what is told of the whole image
AHEAD = 16  # batches that are drawn ahead

Batch = tuple[np.ndarray, np.ndarray]  # float32[B, S, S, 3], int8[B, F, P]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="workdir/tower", help="folder of the model")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    config = variants.nano()
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(config.language.vocab_size)
    params = train(config, args.steps, args.batch_size)
    pg.checkpoint.save_params(folder / "nano.params.npz", params, "float32")
    with atomic_write(folder / "tokenizer.model") as file:
        file.write(tokenizer)


def make_tokenizer(vocab_size: int) -> bytes:
    """Returns a tokenizer for the labels of scenes, and for the prompt, which is read as often."""
    labels = [record.captions[0] for record in PretrainingScenes("0:20000").texts(range(20_000))]
    return pg.tokenizer.train(["caption en"] * len(labels) + labels, vocab_size)


def train(config: PaliGemmaConfig, steps: int, batch_size: int) -> dict[str, Any]:
    """Returns parameters of a model with a trained tower, the mean of the last steps'."""
    model_key, head_key = jax.random.split(jax.random.key(1))
    model, width = paligemma.init(config, model_key), config.language.width
    classes = sum(map(len, CLASSES.values()))
    head = jax.random.normal(head_key, (width, classes)) * width**-0.5
    params = {"img": model["img"], "head": head, "bias": jnp.zeros(classes)}
    measure = jax.jit(lambda p, images, facts: loss_and_right(config, p, images, facts))
    held_out = drawn(config.vision, HELD_OUT, 400)

    def tell(number: int, seconds: float, mean: dict[str, Any]) -> None:
        loss, right = measure(mean, *held_out)
        told = ", ".join(f"{fact} {float(right[fact]):.1%}" for fact in FACTS)
        print(f"step {number}, {seconds:.0f} s: loss {loss:.3f}; {told}", flush=True)

    mean = tower_training.train(
        params,
        lambda p, images, facts: loss_and_right(config, p, images, facts)[0],
        batches(config.vision, steps, batch_size),
        steps,
        rate=1.5e-3,
        weight_decay=0.02,
        tell=tell,
        tell_every=500,
    )
    return model | {"img": mean["img"]}


def loss_and_right(
    config: PaliGemmaConfig, params: dict[str, Any], images: jax.Array, facts: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss, and for each fact the share of patches with objects that it is right of."""
    tokens = siglip.encode(config, params["img"], images)
    # The language model's first layer sees them normalized like this.
    tokens *= jax.lax.rsqrt(jnp.mean(tokens**2, -1, keepdims=True) + 1e-6)
    scores = tokens @ params["head"] + params["bias"]
    parts = jnp.split(scores, np.cumsum([*map(len, CLASSES.values())])[:-1], axis=-1)
    shown = (facts[:, FACTS.index("kind")] > 0).astype(jnp.float32)
    loss, right = jnp.float32(0), {}
    for row, (fact, part) in enumerate(zip(FACTS, parts, strict=True)):
        wanted = facts[:, row].astype(jnp.int32)
        each = optax.softmax_cross_entropy_with_integer_labels(part, wanted)
        if fact in ("background", "detail"):
            loss += FAINT * each.mean()
        else:
            weight = jnp.where(shown > 0, 1.0, FAINT if fact == "kind" else 0.0)
            loss += (weight * each).sum() / jnp.maximum(weight.sum(), 1)
        right[fact] = (shown * (part.argmax(-1) == wanted)).sum() / jnp.maximum(shown.sum(), 1)
    return loss, right


def batches(vision: SiglipConfig, steps: int, size: int) -> Iterator[Batch]:
    """Yields batches of scenes that another process draws."""
    room = threading.Semaphore(AHEAD)  # or it would draw them all, and memory would hold them

    def firsts() -> Iterator[int]:
        for number in range(steps):
            room.acquire()
            yield FIRST + number * size

    # A fork of a process that runs JAX's threads could wait for ever.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        draw = functools.partial(drawn, vision, count=size)
        for batch in pool.imap(draw, firsts()):
            room.release()
            yield batch


def drawn(vision: SiglipConfig, first: int, count: int) -> Batch:
    """Returns images of scenes as the model is shown them, and their facts."""
    records = PretrainingScenes(f"{first}:{first + count}").read(range(count))
    images = [pg.data.decode_image(record.image, vision.image_size) for record in records]
    side = vision.image_size // vision.patch_size
    facts = [patch_facts(scene_of(number), side) for number in range(first, first + count)]
    return np.stack(images), np.stack(facts)


if __name__ == "__main__":
    main()
