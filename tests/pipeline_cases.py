"""Batches of the small data sets of `data_cases`, and what one asks of them."""

import hashlib

import numpy as np

from paligemma_lib.data import eval_batches, train_batches
from paligemma_lib.testing import tiny_tokenizer

SIZE, TEXT = 24, 128
RECORDS = 50


def train(source, **options):
    options = {"batch_size": 8, "seed": 0, "image_size": SIZE, "text_len": TEXT} | options
    return train_batches(source, tiny_tokenizer(), **options)


def evaluate(source, **options):
    options = {"batch_size": 8, "image_size": SIZE, "text_len": TEXT} | options
    return list(eval_batches(source, tiny_tokenizer(), **options))


def take(batches, count):
    return [next(batches) for _ in range(count)]


def digest(batches) -> str:
    """A hash of a global batch, given by its processes' parts."""
    parts = [np.concatenate([batch[key] for batch in batches]) for key in sorted(batches[0])]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:12]


def captions_in(batch, row: int = 0) -> list[str]:
    segment, text = batch["segment"][row], batch["text"][row]
    return [tiny_tokenizer().decode(text[segment == k]) for k in range(1, segment.max() + 1)]
