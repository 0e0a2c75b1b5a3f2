"""Source to batches of the contract in `batch.py`, by tf.data.

    batches = train_batches(source, tokenizer, image_size=224, text_len=128, captions="packed",
                            batch_size=32, seed=0, start_step=0)
    for batch in batches: ...                  # endless; batches.step is all a checkpoint needs

    for batch in eval_batches(source, tokenizer, image_size=224, text_len=128, batch_size=32): ...

`batch_size` is global; with several processes each passes its index and their number and gets its
own rows, `batch_size / process_count` of them. The global batch of a step is the same however many
processes read it, wherever the run was resumed.
"""

from __future__ import annotations

from typing import Literal

from paligemma_lib.data.batches import Batches
from paligemma_lib.data.examples import Examples
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
    apply_exif: bool = False,
    min_crop_area: float = 1.0,
    horizontal_flip: bool = False,
    on_corrupt_image: Literal["raise", "replace"] = "raise",
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Endless batches; every epoch visits all records in a new order.

    Args:
      source: where the records are.
      tokenizer: the model's.
      image_size: S in pixels.
      text_len: T, tokens of an example, prompt and captions together.
      batch_size: B, examples of a step over all processes.
      seed: which order, captions and crops.
      captions: "packed" puts all captions of an image behind it; "sample" takes one in each
        epoch, all of them before any comes again.
      prefix: the prompt, where the record has none of its own.
      lowercase: whether captions are lower-cased.
      truncate: cut text that is too long (keeping EOS) instead of raising.
      image_dtype: float32 in [-1, 1], or uint8 to be scaled on the device: a quarter of the bytes.
      apply_exif: turn images as their EXIF orientation says; the reference does not.
      min_crop_area: below 1, a random part of the image of at least this share of its area.
      horizontal_flip: exchange left and right in half of the images, at random.
      on_corrupt_image: whether an image that does not decode raises, or is replaced by another
        record, always the same one. `Batches.corrupt_images` then lists its id. Finding one stops
        the stream for a moment, once in a run.
      start_step: the step to begin with.
      process_index, process_count: which of how many processes this is.

    Raises:
      ValueError: an argument is out of range; while iterating, a record cannot be used.
    """
    _check_choice("captions", captions, ("packed", "sample"))
    _check_choice("on_corrupt_image", on_corrupt_image, ("raise", "replace"))
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
        horizontal_flip=horizontal_flip,
        process_index=process_index,
        process_count=process_count,
    )
    return Batches(examples, start_step, replace=on_corrupt_image == "replace")


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
    black) image and the prompt, whose `valid` is False; all processes get the same number.

    Args:
      captions: "packed" puts all captions of an image behind it; "none" gives the prompt alone,
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


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {choices}")
