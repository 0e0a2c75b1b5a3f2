"""A tiny captioner in files of the real formats, and images to caption."""

from collections.abc import Sequence
from pathlib import Path

import model_cases
import numpy as np
from PIL import Image

import paligemma_lib as pg
from paligemma_lib.decode import Greedy, generate
from paligemma_lib.testing import tiny_tokenizer

CONFIG = model_cases.tiny_config(1)
ROWS = 2  # in a batch, everywhere: what is compiled once serves all
OPTIONS = ["--max-new-tokens", "6", "--batch-size", str(ROWS)]
GREEDY = Greedy()
_FIRST_LETTERS = 260  # parts before are special, or single bytes


def random_params() -> dict:
    """Random parameters whose captions are of letters, and other ones for other images."""
    params = model_cases.random_params(CONFIG)
    params["llm"]["embedder"]["input_embedding"][:_FIRST_LETTERS] = 0
    layers = model_cases.flatten(params["llm"]["layers"])
    params["llm"]["layers"] = model_cases.unflatten({k: 3 * v for k, v in layers.items()})
    return params


def write_captioner(folder: Path) -> list[str]:
    """Writes a checkpoint and a tokenizer; returns the arguments by which a script finds them."""
    pg.checkpoint.save_params(folder / "tiny.npz", random_params())
    tokenizer = folder / "tiny.model"
    tokenizer.write_bytes(tiny_tokenizer()._pieces.serialized_model_proto())
    return ["--checkpoint", str(folder / "tiny.npz"), "--tokenizer", str(tokenizer), *OPTIONS]


def write_nano(folder: Path) -> Path:
    """Writes a checkpoint with its tokenizer beside it; returns the path to put for NANO."""
    pg.checkpoint.save_params(folder / "nano.params.f16.npz", random_params())
    (folder / "tokenizer.model").write_bytes(tiny_tokenizer()._pieces.serialized_model_proto())
    return folder / "nano.params.f16.npz"


def write_images(folder: Path, names: Sequence[str]) -> Path:
    """Images of noise, each another."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def captions_of(checkpoint: str, paths: Sequence[Path], sampler=GREEDY) -> list[str]:
    """What the library alone says of these images."""
    pixels = [pg.data.decode_image(path.read_bytes(), CONFIG.vision.image_size) for path in paths]
    params = pg.checkpoint.load_params(checkpoint, CONFIG)
    captions = []
    for start in range(0, len(paths), ROWS):
        rows = np.resize(np.arange(start, min(start + ROWS, len(paths))), ROWS)
        found = generate(
            CONFIG,
            params,
            np.stack(pixels)[rows],
            tiny_tokenizer(),
            sampler=sampler,
            max_new_tokens=6,
        )
        captions += [caption.text for caption in found[: len(paths) - start]]
    assert all(captions)
    return captions
