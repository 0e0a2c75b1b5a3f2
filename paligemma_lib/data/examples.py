"""Loads the rows of one process's batches: everything except the pixels.

    examples = Examples(source, tokenizer, image_size=224, text_len=128, batch_size=32, seed=0, ...)
    rows = examples.load(np.arange(first, last))      # encoded images, text arrays, crop boxes

A row is a pure function of its index.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from paligemma_lib.data import order
from paligemma_lib.data.argument_checks import (
    MAX_BATCH,
    MAX_SIDE,
    MAX_TEXT_LEN,
    check_choice,
    check_seed,
    check_share,
    check_switch,
    check_text,
    check_whole,
)
from paligemma_lib.data.encoded import as_jpeg_or_png, exif_orientation
from paligemma_lib.data.mirrored_text import mirrored
from paligemma_lib.data.sources import Record, Source
from paligemma_lib.data.sources.protocol import records_of
from paligemma_lib.data.text import pack
from paligemma_lib.tokenizer import Tokenizer

_KEPT_TEXTS = 1 << 16
_MOST = {
    "image_size": MAX_SIDE,
    "text_len": MAX_TEXT_LEN,
    "batch_size": MAX_BATCH,
    "process_count": MAX_BATCH,
}
_FILLER = Record(image=b"", captions=(), image_id="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples of one process, by row; the arguments are those of `train_batches`.

    Attributes:
      seed: seed of training; None in evaluation, which reads every record once, in order.
      captions: "packed", "sample", or "none" for the prompt alone.
    """

    source: Source
    tokenizer: Tokenizer
    image_size: int
    text_len: int
    batch_size: int
    seed: int | None
    captions: str
    prefix: str
    lowercase: bool
    truncate: bool
    image_dtype: str
    apply_exif: bool
    min_crop_area: float = 1.0
    horizontal_flip: bool = False
    process_index: int
    process_count: int

    def __post_init__(self) -> None:
        check_choice("image_dtype", self.image_dtype, ("float32", "uint8"))
        check_text("prefix", self.prefix)
        for name, most in _MOST.items():
            # A frozen dataclass; NumPy's numbers and whole floats become int.
            object.__setattr__(self, name, check_whole(name, getattr(self, name), 1, most))
        last = self.process_count - 1
        index = check_whole("process_index", self.process_index, 0, last)
        object.__setattr__(self, "process_index", index)
        if self.seed is not None:
            object.__setattr__(self, "seed", check_seed("seed", self.seed))
        for name in ("lowercase", "truncate", "apply_exif", "horizontal_flip"):
            check_switch(name, getattr(self, name))
        if self.batch_size % self.process_count:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of {self.process_count} processes"
            )
        check_share("min_crop_area", self.min_crop_area)

    @property
    def share(self) -> int:
        """Number of rows of a step that belong to this process."""
        return self.batch_size // self.process_count

    def count(self) -> int:
        """Returns the number of rows; in training, more than any run uses.

        Raises:
          ValueError: the source has no records.
        """
        if len(self.source) == 0:
            raise ValueError(f"{self.source} has no records")
        if self.seed is None:
            # Rounded up to whole batches: 10 records in batches of 4 over 2 processes give 3
            # batches, so 6 rows for each process.
            return self.share * -(-len(self.source) // self.batch_size)
        # Row i has an example number near i * process_count, which this bound keeps within int64.
        return np.iinfo(np.int64).max // self.batch_size

    def records(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns example, record and number of earlier visits of each row, int64[n] each.

        In evaluation, record -1 marks a row that only fills up the last batch.
        """
        count = len(self.source)
        examples = order.example_numbers(
            indices,
            batch_size=self.batch_size,
            process_index=self.process_index,
            process_count=self.process_count,
        )
        if self.seed is None:
            numbers = np.where(examples < count, examples, -1)
            return examples, numbers, np.zeros_like(numbers)
        return examples, *records_of(self.source, examples, self.seed)

    def load(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Loads rows from the source.

        Args:
          indices: int64[n], indices of rows, counted through all steps.

        Returns:
          `encoded`: bytes[n] as objects; `text`, `segment`, `position`, `loss_weight` of the batch
          contract; if enabled, `orientation`: int32[n], `box`: float32[n, 4] and `flipped`:
          bool[n], see `to_pixels`; in evaluation, `image_id`: bytes[n] as objects and `valid`:
          bool[n].

        Raises:
          ValueError, FileNotFoundError: a record cannot be read, or its text does not fit.
        """
        examples, numbers, visits = self.records(indices)
        valid = numbers >= 0
        records = [_FILLER] * len(indices)
        found = self.source.read(numbers[valid].tolist())
        for index, record in zip(np.flatnonzero(valid), found, strict=True):
            records[index] = record
        # Texts are tokenized in this thread: SentencePiece does not release the GIL, so more
        # threads would not help, and from the second epoch on the cache holds most captions.
        told = self.as_shown(examples, records)
        rows = [self._text(*each) for each in zip(visits, numbers, told, strict=True)]
        loaded = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        images = [_decodable(record.image) for record in records]
        loaded["encoded"] = np.array(images, object)
        if self.apply_exif:
            turns = [exif_orientation(image) for image in images]
            loaded["orientation"] = np.array(turns, np.int32)
        if self.seed is None:
            loaded["image_id"] = np.array([_encoded_id(record) for record in records], object)
            loaded["valid"] = valid
            return loaded
        if self.min_crop_area < 1:
            loaded["box"] = order.crop_boxes(examples, min_area=self.min_crop_area, seed=self.seed)
        if self.horizontal_flip:
            loaded["flipped"] = order.flipped(examples, seed=self.seed)
        return loaded

    def as_shown(self, examples: np.ndarray, records: Sequence[Record]) -> list[Record]:
        """Returns records as their images are shown: where one is flipped, its texts are as well.

        Args:
          examples: int64[n], number of the example of each record.
          records: as the source has them.
        """
        if self.seed is None or not self.horizontal_flip:
            return list(records)
        flipped = order.flipped(examples, seed=self.seed)
        return [
            self._mirrored(record) if turned else record
            for record, turned in zip(records, flipped, strict=True)
        ]

    def _mirrored(self, record: Record) -> Record:
        prefix = self.prefix if record.prefix is None else record.prefix
        captions = tuple(map(mirrored, record.captions))
        return dataclasses.replace(record, prefix=mirrored(prefix), captions=captions)

    @functools.cached_property
    def _encode(self) -> tuple[Callable[[str], list[int]], Callable[[str], list[int]]]:
        """Functions that tokenize prefix and suffix, cached since every epoch repeats the texts."""
        keep = functools.lru_cache(_KEPT_TEXTS)
        return keep(self.tokenizer.encode_prefix), keep(self.tokenizer.encode_suffix)

    def _text(self, visits: int, number: int, record: Record) -> dict[str, np.ndarray]:
        captions = () if self.captions == "none" else record.captions
        prefix = self.prefix if record.prefix is None else record.prefix
        try:
            if self.seed is not None and not captions:
                raise ValueError("it has no caption to train on")
            if self.seed is not None and self.captions == "sample":
                one = order.caption_number(
                    int(number), int(visits), captions=len(captions), seed=self.seed
                )
                captions = captions[one : one + 1]
            if self.lowercase:
                captions = tuple(caption.lower() for caption in captions)
            encode_prefix, encode_suffix = self._encode
            suffixes = [encode_suffix(caption) for caption in captions]
            return pack(encode_prefix(prefix), suffixes, self.text_len, truncate=self.truncate)
        except ValueError as error:
            where = self.source.where(number)
            raise ValueError(f"image {record.image_id} ({where}): {error}") from error


def _encoded_id(record: Record) -> bytes:
    return record.image_id.encode(errors="surrogateescape")  # the names of files may be any bytes


def _decodable(encoded: bytes) -> bytes:
    """Returns bytes for TensorFlow; b"", which it rejects, for an image that it must not see."""
    try:
        return as_jpeg_or_png(encoded)
    except ValueError:
        return b""  # `Batches` then decodes by `decode_image`, which says why
