"""Data of a run before it starts: records are there and whole, captions fit `text_len`.

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
from paligemma_lib.data.sources import Source
from paligemma_lib.data.text import pack
from paligemma_lib.tokenizer import Tokenizer

REPORT = "verification.json"  # that flickr8k_tfds leaves beside the data

_CHUNK = 64  # records read at a time
_FRAME = 16  # bytes that a TFRecord file has around each record
_MAX_REPORT_BYTES = 1 << 30


def verified(name: str, data_dir: str) -> str:
    """Compares the files of a TFDS data set with what was written when it was built.

    Args:
      name: as for `from_tfds`.
      data_dir: where TFDS keeps it; "": in its usual place.

    Returns:
      What the verification report says, if there is one.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is cut off, or the report is of another build.
    """
    import tensorflow_datasets as tfds

    if tf.io.gfile.exists(join(name, "dataset_info.json")):
        builder = tfds.builder_from_directory(name)
    else:
        builder = tfds.builder(name, data_dir=data_dir or None)
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
    """Packs the captions of a source, each process those of its share; says how many records fit.

    Args:
      source: whose records are read, and so their checksums compared.
      tokenizer, text_len, prompt, lowercase, captions: as for `train_batches`.
      records: how many are looked at, evenly spread; None: all.

    Raises:
      ValueError: captions do not fit, which else would show hours later.
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
            if captions == "sample":
                suffixes = [max(suffixes, key=len, default=[])]
            try:
                pack(prefix, suffixes, text_len)
            except ValueError as error:
                where = source.where(number)
                raise ValueError(f"image {record.image_id} ({where}): {error}") from error
    return len(numbers)


def _told(path: str, counts: dict[str, int]) -> str:
    """The verification report in a sentence."""
    try:
        report = json.loads(read_whole(path, _MAX_REPORT_BYTES))
        # Those that were built before 2026-11-28 say "pictures".
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
