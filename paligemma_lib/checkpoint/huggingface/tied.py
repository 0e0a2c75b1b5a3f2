"""Compares an output layer in a file with the embedding table, which PaliGemma uses for both.

check_tied("my-captioner", stored["lm_head.weight"], table, (257_152, 2048), threads)
"""

from concurrent.futures import Executor

import numpy as np

from paligemma_lib.checkpoint.arrays import read_at
from paligemma_lib.checkpoint.huggingface.folder import Stored

_ROWS = 8192  # rows that are compared at a time


def check_tied(
    source: str, head: Stored, table: Stored, shape: tuple[int, ...], threads: Executor
) -> None:
    """Compares the rows of the vocabulary, but not padding after it.

    Args:
      source: name of the checkpoint in the error.
      head: the output layer.
      table: the embedding table. One of both may be stored in fewer bits.
      shape: rows of the vocabulary, and their width.
      threads: threads that read.

    Raises:
      ValueError: they differ.
    """
    rows, width = shape
    types = head.entry.dtype, table.entry.dtype
    stored_rows, *stored_width = head.entry.shape or (0,)
    equal = stored_width == [width] and stored_rows >= rows and None not in types
    for row in range(0, rows if equal else 0, _ROWS):
        chunks = []
        for stored, dtype in zip((head, table), types, strict=True):
            chunk = np.empty((min(_ROWS, rows - row), width), dtype)
            skip = row * width * chunk.itemsize
            read_at(stored.file, stored.entry.start + skip, chunk, threads)
            chunks.append(chunk)
        equal = equal and _same_values(*chunks)
    if not equal:
        raise ValueError(
            f"{source}: {head.name} differs from the embedding table, but PaliGemma uses one table "
            "for both. Export the model with tied word embeddings."
        )


def _same_values(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same values, where one may be the other cast to fewer bits."""
    # Bytes are compared, as NaN differs from itself as a value.
    if one.dtype == other.dtype:
        return one.tobytes() == other.tobytes()
    with np.errstate(over="ignore", invalid="ignore"):
        return (
            one.astype(other.dtype).tobytes() == other.tobytes()
            or other.astype(one.dtype).tobytes() == one.tobytes()
        )
