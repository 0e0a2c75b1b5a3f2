"""Trains the vision tower of a new small model on which words people use for a photograph.

    tfds build flickr8k_tfds --manual_dir=FOLDER_OR_ZIP
    python examples/pretrain_words.py           # writes workdir/words
    paligemma finetune --config=flickr8k_scratch

To write sentences is hard to learn, and of the loss little is about what an image shows. So the
tower learns first which words occur, in 26 minutes on two CPU cores. It begins as that of `nano`,
which has seen drawn scenes. Words are in the pieces of the run's tokenizer, and what is learned of
them becomes the run's table of embeddings.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tower_training

import paligemma_lib as pg
from paligemma_lib.batch import Batch
from paligemma_lib.model import siglip
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.run.batching import eval_batches_of, train_batches_of
from paligemma_lib.run.prepare import prepare

CONFIG = ("batch_size=32", "data.min_crop_area=0.3", "model.checkpoint=", "model.vocab_size=2048")
RATE, WEIGHT_DECAY = 1e-3, 0.1
CAPTIONS = 5  # of an image; a piece in all of them counts 1
QUERIES = 4  # each looks for patches of its own

Params = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="workdir/words", help="folder of the model")
    parser.add_argument("--epochs", type=float, default=30)
    told = "of the config of the run that follows, such as data.dir=built"
    parser.add_argument("changes", nargs="*", metavar="FIELD=VALUE", help=told)
    args = parser.parse_args()
    given = [f"--config.{each}" for each in (*CONFIG, f"workdir={args.out}", *args.changes)]
    prepared = prepare(pg.run.Setup(pg.run.load("flickr8k_scratch", given)))
    config, model, data = prepared.config, prepared.model, prepared.data
    size, tokenizer = model.vision.image_size, prepared.tokenizer
    per_epoch = max(1, len(data["train"]) // config.batch_size)
    held_out = [
        tuple(array[batch["valid"]] for array in arrays_of(batch))
        for batch in eval_batches_of(config, data["validation"], tokenizer, image_size=size)
    ]
    measure = jax.jit(lambda params, batch: loss(model, params, *batch))

    def tell(number: int, seconds: float, mean: Params) -> None:
        found = np.mean([measure(mean, batch) for batch in held_out])
        print(f"step {number}, {seconds:.0f} s: validation loss {found:.2f}", flush=True)

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        rows = train_batches_of(config, data["train"], tokenizer, image_size=size, start_step=0)
        yield from map(arrays_of, rows)

    params = prepared.params
    mean = tower_training.train(
        first_params(model, params, held_out),
        lambda *given: loss(model, *given),
        batches(),
        max(1, int(args.epochs * per_epoch)),
        rate=RATE,
        weight_decay=WEIGHT_DECAY,
        tell=tell,
        tell_every=per_epoch,
    )
    params["img"], params["llm"]["embedder"]["input_embedding"] = mean["img"], mean["table"]
    pg.checkpoint.save_params(Path(args.out) / "words.params.npz", params, "float32")


def arrays_of(batch: Batch) -> tuple[np.ndarray, ...]:
    """Returns what the loss takes of a batch: images, tokens, and whose caption each is of."""
    return batch["image"], batch["text"], batch["segment"]


def first_params(model: PaliGemmaConfig, params: Params, batches: list[Any]) -> Params:
    """Returns what trains: a tower that has seen drawn scenes, a table, and a head."""
    width, vocab_size = model.language.width, model.language.vocab_size
    shares = [occurring(text, segment, vocab_size) for _, text, segment in batches]
    often = jnp.concatenate(shares).mean(0)
    return {
        "img": jax.tree.map(
            lambda leaf: jnp.asarray(leaf, "float32"), pg.load("nano").params["img"]
        ),
        "table": jnp.asarray(params["llm"]["embedder"]["input_embedding"], "float32"),
        "queries": jax.random.normal(jax.random.key(3), (QUERIES, width)) * width**-0.5,
        "bias": jnp.log((often + 1e-4) / (1 - often + 1e-4)),
    }


def loss(model: PaliGemmaConfig, params: Params, image: Any, text: Any, segment: Any) -> jax.Array:
    """Returns float32[], how badly the image tells of each piece whether captions have it."""
    tokens = siglip.encode(model, params["img"], image)
    # The language model's first layer sees them normalized like this.
    tokens *= jax.lax.rsqrt(jnp.mean(tokens**2, -1, keepdims=True) + 1e-6)
    # q query, b image, p patch, d width.
    looked_at = jax.nn.softmax(jnp.einsum("qd,bpd->bqp", params["queries"], tokens), axis=-1)
    seen = jnp.einsum("bqp,bpd->bqd", looked_at, tokens).mean(1)
    scores = seen @ params["table"].T + params["bias"]
    wanted = occurring(text, segment, model.language.vocab_size)
    return optax.sigmoid_binary_cross_entropy(scores, wanted).sum(-1).mean()


def occurring(text: Any, segment: Any, vocab_size: int) -> jax.Array:
    """Returns float32[B, V], how often captions have each piece, as a share of five; at most 1."""
    rows = jnp.arange(len(text))[:, None]
    counts = jnp.zeros((len(text), vocab_size)).at[rows, text].add((segment > 0) / CAPTIONS)
    return jnp.minimum(counts, 1)


if __name__ == "__main__":
    main()
