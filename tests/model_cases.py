"""Small models and batches that the model's tests share."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib import model
from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig

VERSIONS = (1, 2)


def tiny_config(version: int) -> PaliGemmaConfig:
    """Same sizes as the golden files: one key/value head, or two with Gemma 2's additions."""
    gemma2 = {"attention_softcap": 50.0, "post_norms": True} if version == 2 else {}
    return PaliGemmaConfig(
        SiglipConfig(image_size=32, patch_size=8, width=48, depth=2, mlp_dim=96, num_heads=4),
        GemmaConfig(
            width=64,
            depth=3,
            mlp_dim=128,
            num_heads=4,
            num_kv_heads=version,
            head_dim=16,
            vocab_size=512,
            **gemma2,
        ),
    )


def random_params(config: PaliGemmaConfig, seed: int = 0) -> dict:
    """Random parameters, none of them neutral; 0.12 is about 1 / sqrt(width) here."""
    rng = np.random.default_rng(seed)
    params = {
        name: rng.normal(0, 0.12, leaf.shape).astype(np.float32)
        for name, leaf in flatten(model.abstract_params(config)).items()
    }
    for name in params:
        if name.startswith("img/") and name.endswith("/scale"):
            params[name] += 1
    return unflatten(params)


def packed_batch(config: PaliGemmaConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Four images with one to three suffixes after prefixes of different lengths."""
    rng = np.random.default_rng(seed)
    rows = [(4, [5]), (3, [3, 5, 2]), (5, [4, 6]), (2, [9, 4, 9])]
    size = config.vision.image_size
    batch = {
        "image": rng.uniform(-1, 1, (len(rows), size, size, 3)).astype(np.float32),
        "text": np.zeros((len(rows), 24), np.int32),
        "segment": np.full((len(rows), 24), -1, np.int32),
        "position": np.zeros((len(rows), 24), np.int32),
    }
    for b, (prefix, suffixes) in enumerate(rows):
        segment = np.repeat(np.arange(len(suffixes) + 1), [prefix, *suffixes])
        position = [np.arange(prefix), *(prefix + np.arange(n) for n in suffixes)]
        n = len(segment)
        batch["text"][b, :n] = rng.integers(4, config.language.vocab_size, n)
        batch["segment"][b, :n] = segment
        batch["position"][b, :n] = np.concatenate(position)
    return batch


def flatten(params: dict) -> dict[str, np.ndarray]:
    """Nested dict -> flat dict with the checkpoints' names."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def unflatten(flat: dict[str, np.ndarray]) -> dict:
    """The inverse of `flatten`."""
    nested: dict = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return nested


def golden(shared: Path, version: int) -> tuple[dict, dict, dict]:
    """Reference parameters (nested), batch of the contract, and everything by its name."""
    with np.load(shared / "golden" / f"paligemma{version}_tiny.npz") as file:
        everything = {name: file[name] for name in file.files}
    params = {
        name.removeprefix("params/"): value.astype(np.float32)
        for name, value in everything.items()
        if name.startswith("params/")
    }
    text = everything["batch/text"]
    segment = np.where(everything["batch/mask_input"] == 1, everything["batch/mask_ar"], -1)
    batch = {
        "image": everything["batch/image"],
        "text": text,
        "segment": segment.astype(np.int32),
        "position": np.broadcast_to(np.arange(text.shape[1], dtype=np.int32), text.shape),
    }
    return unflatten(params), batch, everything


@functools.partial(jax.jit, static_argnums=0)
def all_logits(config: PaliGemmaConfig, params: dict, batch: dict) -> jax.Array:
    """float32[B, T, V]."""
    return model.logits(config, params, model.hidden_states(config, params, **batch))


def log_likelihood(config: PaliGemmaConfig, params: dict, batch: dict) -> jax.Array:
    """float32[B, T]: log-probability of each token at the slot that predicts it."""
    slots = model.source_positions(batch["segment"])
    hidden = model.hidden_states(config, params, **batch, indices=slots)
    scores = jax.nn.log_softmax(model.logits(config, params, hidden))
    return jnp.take_along_axis(scores, batch["text"][..., None], axis=-1)[..., 0]


def loss_weight(segment: np.ndarray) -> np.ndarray:
    """float32[B, T]: 1 / tokens of the suffix; so weighs the reference, with one per example."""
    weight = np.zeros(segment.shape, np.float32)
    for row, row_weight in zip(segment, weight, strict=True):
        for k in range(1, row.max() + 1):
            row_weight[row == k] = 1 / np.sum(row == k)
    return weight
