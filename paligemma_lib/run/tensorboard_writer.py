"""Events for TensorBoard, by TensorFlow itself: its other writers would load Keras first.

writer = TensorBoardWriter("runs/mine")
writer.scalar("loss", 2.3, step=100)
"""

import os
from typing import Any

import numpy as np
import tensorflow as tf


class TensorBoardWriter:
    """What `train.Progress` takes as its writer; all is in the file when a call returns."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Begins a file of events in a folder, local or `gs://`."""
        self._events = tf.summary.create_file_writer(os.fspath(folder))

    def scalar(self, tag: str, value: Any, step: int) -> None:
        """Writes a number."""
        with self._events.as_default():
            tf.summary.scalar(tag, float(value), step)
        self._events.flush()

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Writes uint8[H, W, 3]."""
        with self._events.as_default():
            tf.summary.image(tag, image[None], step)
        self._events.flush()

    def text(self, tag: str, textdata: str, step: int) -> None:
        """Writes a text."""
        with self._events.as_default():
            tf.summary.text(tag, textdata, step)
        self._events.flush()
