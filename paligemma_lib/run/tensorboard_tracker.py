"""Writes TensorBoard events with `tf.summary`; other writers would import Keras first.

tracker = TensorBoardTracker("runs/mine", {})
tracker.scalars({"loss": 2.3}, step=100)
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf


class TensorBoardTracker:
    """A `train.Tracker` for TensorBoard; each call flushes its events to the file."""

    def __init__(self, workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
        """Opens an event file in a folder, local or `gs://`, and writes the config to it."""
        self._events = tf.summary.create_file_writer(os.fspath(workdir))
        with self._events.as_default():
            tf.summary.text("config", f"```json\n{json.dumps(config, indent=2)}\n```", 0)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes scalars by name."""
        with self._events.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step)
        self._events.flush()

    def caption(self, image_id: str, image: np.ndarray, caption: str, step: int) -> None:
        """Writes an image, uint8[H, W, 3], and its caption as text."""
        with self._events.as_default():
            tf.summary.image(f"images/{image_id}", image[None], step)
            tf.summary.text(f"captions/{image_id}", caption, step)
        self._events.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._events.close()
