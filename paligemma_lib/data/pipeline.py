"""Source to batches of the contract in `batch.py`, by tf.data.

    batches = train_batches(source, tokenizer, image_size=224, text_len=128, captions="packed",
                            batch_size=32, seed=0, start_step=0)
    for batch in batches: ...                  # endless; batches.step is all a checkpoint needs

    for batch in eval_batches(source, tokenizer, image_size=224, text_len=128, batch_size=32): ...

`batch_size` is global; with several processes each passes its index and their number and gets its
own rows, `batch_size / process_count` of them. The global batch of a step is the same however many
processes read it, wherever the run was resumed. Records are read by number, several at a time, in
Python; pictures are decoded by TensorFlow's threads; at most two finished batches wait.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from paligemma_lib.batch import Batch
from paligemma_lib.data.examples import Examples
from paligemma_lib.data.image import decode_image, leave_gpu_memory, to_pixels
from paligemma_lib.data.sources import Source
from paligemma_lib.tokenizer import Tokenizer

_CHUNK = 32  # records read by one call of Python
_READERS = 2  # such calls at a time
_FINISHED = 2  # batches kept ready
_TEXT = ("text", "segment", "position", "loss_weight")


def train_batches(
    source: Source,
    tokenizer: Tokenizer,
    *,
    image_size: int,
    text_len: int,
    batch_size: int,
    seed: int,
    captions: Literal["packed", "sample"] = "packed",
    prefix: str = "caption en",
    lowercase: bool = False,
    truncate: bool = False,
    image_dtype: Literal["float32", "uint8"] = "float32",
    apply_exif: bool = False,
    min_crop_area: float = 1.0,
    undecodable: Literal["raise", "replace"] = "raise",
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Endless batches; every epoch visits all records in a new order.

    Args:
      source: where the records are.
      tokenizer: the model's.
      image_size: S in pixels.
      text_len: T, text slots of an example.
      batch_size: B, examples of a step over all processes.
      seed: which order, captions and crops.
      captions: "packed" puts all captions of a picture behind it; "sample" takes one in each
        epoch, all of them before any comes again.
      prefix: the prompt, where the record has none of its own.
      lowercase: whether captions are lower-cased.
      truncate: cut text that is too long (keeping EOS) instead of raising.
      image_dtype: float32 in [-1, 1], or uint8 to be scaled on the device: a quarter of the bytes.
      apply_exif: turn pictures as their EXIF orientation says; the reference does not.
      min_crop_area: below 1, a random part of the picture of at least this share of its area.
      undecodable: whether a picture that does not decode raises, or is replaced by another record,
        always the same one. `Batches.undecodable` then lists its id. Finding one stops the stream
        for a moment, once in a run.
      start_step: the step to begin with.
      process_index, process_count: which of how many processes this is.

    Raises:
      ValueError: an argument is out of range; while iterating, a record cannot be used.
    """
    _check_choice("captions", captions, ("packed", "sample"))
    _check_choice("undecodable", undecodable, ("raise", "replace"))
    if start_step < 0:
        raise ValueError(f"start_step is {start_step}, expected 0 or more")
    examples = Examples(
        source=source,
        tokenizer=tokenizer,
        image_size=image_size,
        text_len=text_len,
        batch_size=batch_size,
        seed=seed,
        captions=captions,
        prefix=prefix,
        lowercase=lowercase,
        truncate=truncate,
        image_dtype=image_dtype,
        apply_exif=apply_exif,
        min_crop_area=min_crop_area,
        process_index=process_index,
        process_count=process_count,
    )
    return Batches(examples, start_step, replace=undecodable == "replace")


def eval_batches(
    source: Source,
    tokenizer: Tokenizer,
    *,
    image_size: int,
    text_len: int,
    batch_size: int,
    captions: Literal["packed", "none"] = "packed",
    prefix: str = "caption en",
    lowercase: bool = False,
    truncate: bool = False,
    image_dtype: Literal["float32", "uint8"] = "float32",
    apply_exif: bool = False,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Every record once, in the source's order, over all processes together.

    Batches also have `image_id` and `valid`. The last one is filled up with examples of a grey (or
    black) picture and the prompt, whose `valid` is False; all processes get the same number.

    Args:
      captions: "packed" puts all captions of a picture behind it; "none" gives the prompt alone,
        to generate from.
      source, tokenizer, ...: as for `train_batches`.

    Raises:
      ValueError: an argument is out of range; while iterating, a record cannot be used.
    """
    _check_choice("captions", captions, ("packed", "none"))
    examples = Examples(
        source=source,
        tokenizer=tokenizer,
        image_size=image_size,
        text_len=text_len,
        batch_size=batch_size,
        seed=None,
        captions=captions,
        prefix=prefix,
        lowercase=lowercase,
        truncate=truncate,
        image_dtype=image_dtype,
        apply_exif=apply_exif,
        process_index=process_index,
        process_count=process_count,
    )
    return Batches(examples, 0, replace=False)


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
        # Threads that call Python when Python ends would abort the program.
        weakref.finalize(self, self._iterator.clear)

    @property
    def undecodable(self) -> list[str]:
        """The ids of the pictures that this process found not to decode, and replaced."""
        return list(self._examples.broken.values())

    def image_ids(self, step: int) -> list[str]:
        """The ids of the pictures in this process's rows of a step's batch."""
        examples = self._examples
        _, numbers = examples.records(np.arange(examples.share) + step * examples.share)
        return [record.image_id for record in examples.source.read(numbers.tolist())]

    def __next__(self) -> Batch:
        while True:
            if not self._iterator:
                self._iterator.append(_dataset(self._examples, self.step).as_numpy_iterator())
            try:
                batch = next(self._iterator[0])
            except tf.errors.OpError as error:
                self._iterator.clear()  # it would skip the example that failed
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
        slots = np.arange(first, min(first + examples.share + _CHUNK, examples.slots()))
        examples.load(slots)  # raises as it is what TensorFlow has wrapped
        _, numbers = examples.records(slots)
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
    leave_gpu_memory()
    spec = _spec(examples)
    first, last = first_step * examples.share, examples.slots()
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
        how = {key: example.pop(key) for key in ("orientation", "box") if key in example}
        encoded = example.pop("encoded")

        def decode() -> tf.Tensor:
            return to_pixels(encoded, size=size, dtype=dtype, **how)

        def blank() -> tf.Tensor:
            return tf.zeros([size, size, 3], dtype)

        image = tf.cond(example["valid"], decode, blank) if "valid" in example else decode()
        return {"image": image, **example}

    threads = os.cpu_count() or 1
    return (
        tf.data.Dataset.range(first, last, _CHUNK)
        .map(load_chunk, num_parallel_calls=_READERS)
        .unbatch()
        .map(add_image, num_parallel_calls=threads)
        .batch(examples.share, drop_remainder=True)
        .prefetch(_FINISHED)
    )


def _spec(examples: Examples) -> dict[str, tf.TensorSpec]:
    """What TensorFlow gets for each slot."""
    spec = {
        "encoded": tf.TensorSpec([], tf.string),
        "rows": tf.TensorSpec([len(_TEXT), examples.text_len], tf.int32),
    }
    if examples.apply_exif:
        spec["orientation"] = tf.TensorSpec([], tf.int32)
    if examples.seed is None:
        spec |= {"image_id": tf.TensorSpec([], tf.string), "valid": tf.TensorSpec([], tf.bool)}
    elif examples.min_crop_area < 1:
        spec["box"] = tf.TensorSpec([4], tf.float32)
    return spec


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {choices}")
