"""Writes record files whose bytes depend on the examples alone, for TFDS.

An example is a map from features to values. Protocol buffers write a map in an order that differs
between processes, so the same build would give other bytes each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow_datasets as tfds


class ReproducibleWriter(tfds.core.ExampleWriter):
    """TFDS's writer, with the features of each example in the order of their names."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        """Writes examples to one file.

        Args:
          path: the file.
          examples: (key, serialized `tf.train.Example`).

        Returns:
          Their positions in the file, where its format has such.
        """
        import tensorflow as tf  # here, since importing the data set should be fast

        parse = tf.train.Example.FromString
        return super().write(
            path,
            ((key, parse(data).SerializeToString(deterministic=True)) for key, data in examples),
        )
