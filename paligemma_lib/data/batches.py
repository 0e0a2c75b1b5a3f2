"""Examples, row after row, to finished batches, by tf.data.

    for batch in Batches(examples, step=0, replace=False): ...

Records are read by number, several at a time, in Python; images are decoded by TensorFlow's
threads; at most two finished batches wait.
"""

import logging
import os
import traceback
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from paligemma_lib.batch import Batch
from paligemma_lib.data.examples import Examples
from paligemma_lib.data.image import allow_memory_growth, decode_image, to_pixels

# A call from TensorFlow into Python holds the interpreter's lock and costs much the same for one
# record as for many. So records come in chunks, and images, which take the time, are decoded one by
# one by TensorFlow's threads.
_CHUNK = 32  # records read by one call of Python
_READERS = 2  # such calls at a time
_FINISHED = 2  # batches kept ready
_TEXT = ("text", "segment", "position", "loss_weight")


class Batches(Iterator[Batch]):
    """Batches in the order of their steps, made ahead by other threads.

    Attributes:
      step: the step whose batch comes next: what a checkpoint keeps to go on from here.
    """

    def __init__(self, examples: Examples, step: int, *, replace: bool):
        self.step = step
        self._examples = examples
        self._replace = replace
        self._iterator: list[Iterator[Any]] = []  # none or one
        # Threads that call Python when Python ends would abort the program, or wait forever.
        weakref.finalize(self, self._iterator.clear)

    @property
    def corrupt_images(self) -> list[str]:
        """The ids of the images that this process found not to decode, and replaced."""
        return list(self._examples.broken.values())

    def image_ids(self, step: int) -> list[str]:
        """The ids of the images in this process's rows of a step's batch."""
        examples = self._examples
        _, numbers = examples.records(np.arange(examples.share) + step * examples.share)
        return [record.image_id for record in examples.source.read(numbers.tolist())]

    def __next__(self) -> Batch:
        while True:
            if not self._iterator:
                self._iterator.append(_dataset(self._examples, self.step).as_numpy_iterator())
            try:
                batch = next(self._iterator[0])
            except BaseException as error:
                # A tf.data iterator that has raised goes on behind the example that failed. A new
                # one, begun at this step, gives the batch again, with another record in its place.
                self._iterator.clear()  # it would skip the example that failed
                traceback.clear_frames(error.__traceback__)  # which hold it too
                if not isinstance(error, tf.errors.OpError):
                    raise  # Ctrl-C, or the end of the data
                self._examine(error)
                continue
            for number, key in enumerate(_TEXT):
                row = np.ascontiguousarray(batch["rows"][:, number])
                batch[key] = row.view(np.float32) if key == "loss_weight" else row
            del batch["rows"]
            if "image_id" in batch:
                batch["image_id"] = np.array([name.decode() for name in batch["image_id"]])
            self.step += 1
            return batch

    def _examine(self, error: tf.errors.OpError) -> None:
        """Raises what is wrong with the records of this step, or notes which do not decode."""
        examples = self._examples
        first = self.step * examples.share
        # Records are read in chunks, so the fault may lie a little behind the step.
        indices = np.arange(first, min(first + examples.share + _CHUNK, examples.count()))
        # TensorFlow reports what Python raised as an error of its own, with a traceback as text.
        # Loading the same rows here raises the error itself.
        examples.load(indices)  # raises as it is what TensorFlow has wrapped
        _, numbers = examples.records(indices)
        numbers = np.unique(numbers[numbers >= 0]).tolist()
        found = {}
        for number, record in zip(numbers, examples.source.read(numbers), strict=True):
            try:
                decode_image(record.image, examples.image_size)
            except ValueError as cause:
                if not self._replace:
                    where = examples.source.where(number)
                    raise ValueError(f"image {record.image_id} ({where}) is {cause}") from error
                logging.getLogger(__name__).warning(
                    "image %s does not decode: another takes its place", record.image_id
                )
                found[number] = record.image_id
        if not found:
            raise error
        examples.broken.update(found)


def _dataset(examples: Examples, first_step: int) -> tf.data.Dataset:
    allow_memory_growth()
    spec = _spec(examples)
    first, last = first_step * examples.share, examples.count()
    size, dtype = examples.image_size, examples.image_dtype

    def load(start: np.int64) -> list[np.ndarray]:
        loaded = examples.load(np.arange(int(start), min(int(start) + _CHUNK, last)))
        # One array instead of four: TensorFlow takes its time for each.
        loaded["rows"] = np.stack([loaded[key].view(np.int32) for key in _TEXT], axis=1)
        return [loaded[key] for key in spec]

    def load_chunk(start: tf.Tensor) -> dict[str, tf.Tensor]:
        arrays = tf.numpy_function(load, [start], [each.dtype for each in spec.values()])
        return {
            key: tf.ensure_shape(array, [None, *each.shape])
            for (key, each), array in zip(spec.items(), arrays, strict=True)
        }

    def add_image(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        how = {key: example.pop(key) for key in ("orientation", "box", "flipped") if key in example}
        encoded = example.pop("encoded")

        def decode() -> tf.Tensor:
            return to_pixels(encoded, size=size, dtype=dtype, **how)

        def blank() -> tf.Tensor:
            return tf.zeros([size, size, 3], dtype)

        image = tf.cond(example["valid"], decode, blank) if "valid" in example else decode()
        return {"image": image, **example}

    threads = os.cpu_count() or 1
    options = tf.data.Options()
    # All numbers are given; and the thread that would tune them may sleep on for a minute at the
    # end: TensorFlow wakes it before it says that it is over.
    options.autotune.enabled = False
    return (
        # Which examples come is known from their numbers alone: the pipeline is a range. Every map
        # keeps its order (`deterministic` is the default), so threads change nothing but the time.
        tf.data.Dataset.range(first, last, _CHUNK)
        .map(load_chunk, num_parallel_calls=_READERS)
        .unbatch()
        .map(add_image, num_parallel_calls=threads)
        .batch(examples.share, drop_remainder=True)
        .prefetch(_FINISHED)
        .with_options(options)
    )


def _spec(examples: Examples) -> dict[str, tf.TensorSpec]:
    """What TensorFlow gets for each row."""
    spec = {
        "encoded": tf.TensorSpec([], tf.string),
        "rows": tf.TensorSpec([len(_TEXT), examples.text_len], tf.int32),
    }
    if examples.apply_exif:
        spec["orientation"] = tf.TensorSpec([], tf.int32)
    if examples.seed is None:
        spec |= {"image_id": tf.TensorSpec([], tf.string), "valid": tf.TensorSpec([], tf.bool)}
        return spec
    if examples.min_crop_area < 1:
        spec["box"] = tf.TensorSpec([4], tf.float32)
    if examples.horizontal_flip:
        spec["flipped"] = tf.TensorSpec([], tf.bool)
    return spec
