"""Provides a small tokenizer with PaliGemma's conventions, and small batches, for tests.

tokenizer = tiny_tokenizer()                                  # 512 pieces, trained in a moment
batch = tiny_batch(tokenizer, batch_size=2, image_size=32, text_len=48, captions=3)
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from paligemma_lib.data.text import pack
from paligemma_lib.tokenizer import Tokenizer, train

TINY_VOCAB = 512

_WHO = "a dog|two girls|a small child|an old man|the climber|three horses|a boy in red|some people"
_DOES = "runs|is jumping high|stand quietly|play with a ball|looks up|waits|swims|rides a bicycle"
_WHERE = "on the beach|in the snow|through green grass|by a river|near tall rocks|under trees"


def tiny_captions() -> list[str]:
    """Returns 384 captions in the style of Flickr8k."""
    parts = (words.split("|") for words in (_WHO, _DOES, _WHERE))
    return [f"{' '.join(each).capitalize()} ." for each in itertools.product(*parts)]


@functools.cache
def tiny_tokenizer() -> Tokenizer:
    """Returns a tokenizer of 512 pieces, trained on `tiny_captions`, that encodes any text."""
    model = train(tiny_captions(), TINY_VOCAB)
    return Tokenizer(model, "the tiny tokenizer", TINY_VOCAB)


def tiny_batch(
    tokenizer: Tokenizer,
    *,
    batch_size: int = 2,
    image_size: int = 32,
    text_len: int = 48,
    captions: int = 1,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Returns a training batch of noise images with captions; see `paligemma_lib.batch`."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(batch_size):
        texts = random.choice(tiny_captions(), captions, replace=False)
        suffixes = [tokenizer.encode_suffix(str(text)) for text in texts]
        rows.append(pack(tokenizer.encode_prefix("caption en"), suffixes, text_len, truncate=True))
    image = random.uniform(-1, 1, (batch_size, image_size, image_size, 3)).astype(np.float32)
    return {"image": image, **{key: np.stack([row[key] for row in rows]) for key in rows[0]}}
