"""Makes finished batches from the rows of `Examples`, with tf.data.

    for batch in Batches(examples, step=0): ...

Python reads records by number, in chunks. TensorFlow's threads decode the images. At most two
finished batches are buffered.
"""

import os
import traceback
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from paligemma_lib.batch import Batch
from paligemma_lib.data.argument_checks import MAX_NUMBER, check_whole
from paligemma_lib.data.examples import Examples
from paligemma_lib.data.image import allow_memory_growth, to_pixels
from paligemma_lib.data.replacing import Replacing, check_decodes
from paligemma_lib.data.sources.protocol import Record, read_texts

# A call from TensorFlow into Python holds the GIL and costs about the same for one record as for
# many. So Python loads records in chunks. Decoding takes most of the time, so TensorFlow's threads
# do it, image by image and without the GIL.
_CHUNK = 32  # records loaded by one call into Python
_READERS = 2  # concurrent calls into Python
_FINISHED = 2  # finished batches to prefetch
_TEXT = ("text", "segment", "position", "loss_weight")


class Batches(Iterator[Batch]):
    """Iterator over the batches in the order of steps; other threads prepare them ahead.

    Attributes:
      step: step of the next batch. A checkpoint saves it in order to resume from here.
    """

    def __init__(self, examples: Examples, step: int):
        self.step = step
        self._examples = examples
        self._iterator: list[Iterator[Any]] = []  # none or one
        # The finalizer also runs at interpreter exit. It drops the iterator, and so stops the
        # threads of tf.data: a call into Python during shutdown would abort or hang the process.
        weakref.finalize(self, self._iterator.clear)

    @property
    def corrupt_images(self) -> list[str]:
        """What is wrong with each record that this process has replaced."""
        source = self._examples.source
        return list(source.damaged.values()) if isinstance(source, Replacing) else []

    def texts(self, step: int) -> list[Record]:
        """Returns the records in this process's rows of the batch of a step, without their images.

        Captions are as in the source, before they are lower-cased or sampled; where the image is
        flipped, left and right are exchanged in them, too.
        """
        examples = self._examples
        step = check_whole("step", step, 0, MAX_NUMBER // examples.batch_size - 1)
        which, numbers, _ = examples.records(np.arange(examples.share) + step * examples.share)
        return examples.as_shown(which, read_texts(examples.source, numbers.tolist()))

    def __next__(self) -> Batch:
        while True:
            if not self._iterator:
                self._iterator.append(_dataset(self._examples, self.step).as_numpy_iterator())
            try:
                batch = next(self._iterator[0])
            except BaseException as error:
                # After an error, a tf.data iterator continues with the element after the failed
                # one, so this batch would lose a row. Instead, a new iterator starts at this step
                # and makes the batch again, with a substitute for the failed record.
                self._iterator.clear()
                traceback.clear_frames(error.__traceback__)  # the frames refer to the iterator too
                if not isinstance(error, tf.errors.OpError):
                    raise  # KeyboardInterrupt, or StopIteration at the end of the data
                self._examine(error)
                continue
            # `rows` is int32[B, 4, T], stacked in `load`. A view restores the float32 weights.
            for number, key in enumerate(_TEXT):
                row = np.ascontiguousarray(batch["rows"][:, number])
                batch[key] = row.view(np.float32) if key == "loss_weight" else row
            del batch["rows"]
            if "image_id" in batch:
                ids = [name.decode(errors="surrogateescape") for name in batch["image_id"]]
                batch["image_id"] = np.array(ids)
            self.step += 1
            return batch

    def _examine(self, error: tf.errors.OpError) -> None:
        """Finds the cause of an error at this step: raises it, or has images replaced.

        Raises:
          ValueError: an image does not decode, and the source is not `Replacing`.
          Exception: the original error of a record that cannot be loaded; otherwise `error`, if
            every image decodes.
        """
        examples, source = self._examples, self._examples.source
        first = self.step * examples.share
        # The last chunk of this step may reach up to _CHUNK - 1 rows into later steps, and an error
        # in those rows also fails this step.
        indices = np.arange(first, min(first + examples.share + _CHUNK, examples.count()))
        # TensorFlow turns an exception of `load` into an OpError that has the traceback as text.
        # Loading the same rows here raises the original exception.
        examples.load(indices)
        _, numbers, _ = examples.records(indices)
        numbers = np.unique(numbers[numbers >= 0]).tolist()
        if isinstance(source, Replacing):
            if not source.verify(numbers):
                raise error
            return
        for number, record in zip(numbers, source.read(numbers), strict=True):
            check_decodes(source, number, record)
        raise error


def _dataset(examples: Examples, first_step: int) -> tf.data.Dataset:
    allow_memory_growth()
    spec = _spec(examples)
    first, last = first_step * examples.share, examples.count()
    size, dtype = examples.image_size, examples.image_dtype

    def load(start: np.int64) -> list[np.ndarray]:
        loaded = examples.load(np.arange(int(start), min(int(start) + _CHUNK, last)))
        # TensorFlow has a cost per array, so the four text arrays travel as one, int32[n, 4, T].
        # The float32 weights are reinterpreted as int32, which keeps their bits.
        loaded["rows"] = np.stack([loaded[key].view(np.int32) for key in _TEXT], axis=1)
        return [loaded[key] for key in spec]

    def load_chunk(start: tf.Tensor) -> dict[str, tf.Tensor]:
        arrays = tf.numpy_function(load, [start], [each.dtype for each in spec.values()])
        # numpy_function loses the static shapes.
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
    # All parallelism and buffer sizes are set below, so there is nothing to tune. At shutdown, the
    # autotuning thread may also sleep for another minute, because TensorFlow wakes it before it
    # sets the flag that tells it to stop.
    options.autotune.enabled = False
    return (
        # The index of a row determines its example, so the pipeline starts from a range of indices
        # and needs no shuffle buffer. Every parallel map keeps the order (`deterministic` is True
        # by default), so the number of threads does not affect the batches.
        tf.data.Dataset.range(first, last, _CHUNK)
        .map(load_chunk, num_parallel_calls=_READERS)
        .unbatch()
        .map(add_image, num_parallel_calls=threads)
        .batch(examples.share, drop_remainder=True)
        .prefetch(_FINISHED)
        .with_options(options)
    )


def _spec(examples: Examples) -> dict[str, tf.TensorSpec]:
    """Returns the dtype and shape of each array that TensorFlow receives, for a single row."""
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
