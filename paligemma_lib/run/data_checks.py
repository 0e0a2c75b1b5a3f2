"""Checks the data of a run before it starts: files are complete, and captions fit `text_len`.

print(verified("flickr8k_tfds", data_dir=""))
print(check_texts(source, tokenizer, text_len=128, prompt="caption en"))
"""

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tensorflow as tf

from paligemma_lib.data.files import join, read_whole, stat
from paligemma_lib.data.replacing import check_decodes
from paligemma_lib.data.sources import Source
from paligemma_lib.data.sources.tfds_source import prepared_builder
from paligemma_lib.data.text import pack
from paligemma_lib.tokenizer import Tokenizer

REPORT = "verification.json"  # flickr8k_tfds writes it into the data set's folder

_CHUNK = 64  # records read at a time
_SAMPLE = 8  # records of a source whose images are decoded
_FRAME = 16  # bytes around each record of a TFRecord file: 8 of length, 4 + 4 of checksums
_MAX_REPORT_BYTES = 1 << 30


def verified(name: str, data_dir: str) -> str:
    """Compares file sizes of a TFDS data set with those of its build.

    Args:
      name: as for `from_tfds`.
      data_dir: folder in which TFDS stores data sets; "": the default of TFDS.

    Returns:
      A summary of the verification report; "" if the data set has none.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is truncated, or the report is from another build.
    """
    builder = prepared_builder(name, data_dir or None)
    for split in builder.info.splits.values():
        if builder.info.file_format.value == "tfrecord":
            size = sum(stat(str(path))[0] for path in split.filepaths)
            expected = split.num_bytes + _FRAME * split.num_examples
            if size < expected:
                raise ValueError(
                    f"split {split.name} in {builder.data_dir} has {size:,} bytes, and had "
                    f"{expected:,} when it was built: copy or build it again"
                )
    path = join(str(builder.data_dir), REPORT)
    if not tf.io.gfile.exists(path):
        return ""
    return _told(path, {name: split.num_examples for name, split in builder.info.splits.items()})


def check_sample(split: str, source: Source, *, replace: bool = False) -> None:
    """Decodes some images of a source, evenly spread, and looks for their captions.

    Args:
      split: name of the split, for messages.
      source: at least one record.
      replace: whether the run does without damaged images, so that one intact image is enough.

    Raises:
      ValueError, OSError: an image cannot be read or decoded.
      ValueError: none of the images has a caption. Nothing could be learned or scored.
    """
    last = len(source) - 1
    numbers = sorted({k * last // (_SAMPLE - 1) for k in range(_SAMPLE)})
    captioned, damaged = False, 0
    for number in numbers:
        try:
            (record,) = source.read([number])
            captioned |= any(caption.strip() for caption in record.captions)
            check_decodes(source, number, record)
        except (ValueError, OSError) as error:
            damaged += 1
            if not replace or damaged == len(numbers):
                raise ValueError(f"{split}: {error}") from error
    if not captioned:
        raise ValueError(
            f"{split}: none of {len(numbers)} records has a caption, the first is "
            f"{source.where(0)}. Nothing can be learned from images without captions, or scored"
        )


def check_texts(
    source: Source,
    tokenizer: Tokenizer,
    *,
    text_len: int,
    prompt: str,
    lowercase: bool = False,
    captions: str = "packed",
    records: int | None = None,
) -> int:
    """Tokenizes and packs captions of a source, to find those that do not fit `text_len`.

    Each of several processes checks its share of the records.

    Args:
      source: the records. Reading them also verifies their checksums.
      tokenizer, text_len, lowercase, captions: as for `train_batches`.
      prompt: the prefix of records that have none of their own.
      records: number of records to check, evenly spread; None: all.

    Returns:
      Number of records checked, by all processes together.

    Raises:
      ValueError: the captions of a record do not fit. Without this check, training would raise it
        when it reaches the record, perhaps after hours.
    """
    count = len(source) if records is None else min(records, len(source))
    numbers = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int)).tolist()
    mine = numbers[jax.process_index() :: jax.process_count()]
    for start in range(0, len(mine), _CHUNK):
        chunk = mine[start : start + _CHUNK]
        for number, record in zip(chunk, source.read(chunk), strict=True):
            texts = [text.lower() if lowercase else text for text in record.captions]
            prefix = tokenizer.encode_prefix(record.prefix or prompt)
            suffixes: Sequence[Any] = [tokenizer.encode_suffix(text) for text in texts]
            if captions == "sample":  # one caption at a time: only the longest has to fit
                suffixes = [max(suffixes, key=len, default=[])]
            try:
                pack(prefix, suffixes, text_len)
            except ValueError as error:
                where = source.where(number)
                raise ValueError(f"image {record.image_id} ({where}): {error}") from error
    return len(numbers)


def _told(path: str, counts: dict[str, int]) -> str:
    """Returns the verification report in one sentence.

    Args:
      path: path of the report.
      counts: number of images of each split, from dataset_info.json.

    Raises:
      ValueError: the report cannot be read, or has other counts.
    """
    try:
        report = json.loads(read_whole(path, _MAX_REPORT_BYTES))
        # Reports written before 2026-11-28 have the key "pictures" instead of "images".
        reported = {
            name: split["images" if "images" in split else "pictures"]
            for name, split in report["splits"].items()
        }
        left_out, flickr8k = len(report["left_out"]), report["flickr8k"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no verification report ({error}): build again") from error
    if reported != counts:
        raise ValueError(
            f"{path} counts {reported} images, dataset_info.json {counts}: they are of two "
            "builds; build again"
        )
    complete = "Flickr8k is complete, " if flickr8k and flickr8k["complete"] else ""
    return f"{complete}{left_out:,} left out when it was built"
