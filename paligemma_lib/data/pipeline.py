"""Makes batches of the contract in `batch.py` from a source, with tf.data.

    batches = train_batches(source, tokenizer, image_size=224, text_len=128, captions="packed",
                            batch_size=32, seed=0, start_step=0)
    for batch in batches: ...                  # endless; batches.step is all a checkpoint needs

    for batch in eval_batches(source, tokenizer, image_size=224, text_len=128, batch_size=32): ...

`batch_size` is global. With several processes, each process passes its index and their number, and
gets its own rows, `batch_size / process_count` of them. The global batch of a step depends neither
on the number of processes nor on where the run was resumed.
"""

from __future__ import annotations

from typing import Literal

from paligemma_lib.data.argument_checks import MAX_NUMBER, check_choice, check_whole
from paligemma_lib.data.batches import Batches
from paligemma_lib.data.examples import Examples
from paligemma_lib.data.replacing import Replacing, replace_corrupt
from paligemma_lib.data.sources import Source
from paligemma_lib.deprecation import former_arguments
from paligemma_lib.tokenizer import Tokenizer


@former_arguments(undecodable="on_corrupt_image", mirror="horizontal_flip")
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
    apply_exif: bool = True,
    min_crop_area: float = 1.0,
    horizontal_flip: bool = False,
    on_corrupt_image: Literal["raise", "replace"] = "raise",
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns endless batches for training; every epoch visits all records in a new order.

    Args:
      source: source of the records.
      tokenizer: tokenizer of the model.
      image_size: S in pixels.
      text_len: T, the number of text positions of an example, for prompt and captions together.
      batch_size: B, the number of examples per step over all processes.
      seed: seed of the order of records, the choice of captions, crops and flips.
      captions: "packed" puts all captions of an image behind one prompt; "sample" uses one caption
        in each epoch, and all captions before any repeats.
      prefix: the prompt of records that have none of their own.
      lowercase: whether to lower-case the captions.
      truncate: whether to cut text that is too long (keeping EOS) instead of raising an error.
      image_dtype: float32 in [-1, 1], or uint8, which the device scales: a quarter of the bytes.
      apply_exif: whether to apply the EXIF orientation of images; the reference does not.
      min_crop_area: if below 1, crops each image at random to at least this fraction of its area.
      horizontal_flip: whether to exchange left and right in half of the images, at random, and
        the words "left" and "right" in their texts.
      on_corrupt_image: "raise" raises an error for a record that cannot be read, or an image that
        does not decode; "replace" substitutes another record, always the same one, and lists what
        is wrong in `Batches.corrupt_images`. Finding such an image pauses the batches, once in a
        run. A source from `replace_corrupt` always replaces.
      start_step: step of the first batch.
      process_index, process_count: index of this process, and the number of processes.

    Raises:
      ValueError: an argument is out of range; while iterating, a record cannot be used.
    """
    check_choice("captions", captions, ("packed", "sample"))
    check_choice("on_corrupt_image", on_corrupt_image, ("raise", "replace"))
    if seed is None:
        raise ValueError("seed=None, expected a whole number")
    if on_corrupt_image == "replace" and not isinstance(source, Replacing):
        source = replace_corrupt(source, captioned=True)
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
        horizontal_flip=horizontal_flip,
        process_index=process_index,
        process_count=process_count,
    )
    last = MAX_NUMBER // examples.batch_size - 1
    return Batches(examples, check_whole("start_step", start_step, 0, last))


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
    apply_exif: bool = True,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns batches for evaluation: all processes together read every record once, in order.

    Batches also have `image_id` and `valid`. The last batch is filled up with examples that have
    `valid` False, the prompt, and an image of zeros (grey, or black if uint8). All processes get
    the same number of batches.

    Args:
      captions: "packed" puts all captions of an image behind one prompt; "none" gives the prompt
        alone, to generate from.
      source, tokenizer, ...: as for `train_batches`.

    Raises:
      ValueError: an argument is out of range; while iterating, a record cannot be used.
    """
    check_choice("captions", captions, ("packed", "none"))
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
    return Batches(examples, 0)
