"""Reads TFRecord and ArrayRecord files of `tf.train.Example`s by number.

source = from_tfrecords("gs://bucket/captions-*.tfrecord")
source = from_tfrecords("old/train-?????-of-00256", image="image/data", captions="image/caption",
                        image_id="image/image_id")
len(source), source.read([17, 3])

Creating a source reads nothing. The files are opened on the first access to its length or records.
A `SequenceExample` can be read too: its context features are like those of an `Example`, and the
steps of a feature list are its values.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from paligemma_lib.data.content_samples import sampled
from paligemma_lib.data.files import glob_files
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.records import Records, open_records
from paligemma_lib.data.sources.json_forms import Columns
from paligemma_lib.data.sources.protocol import Record, Source, check_numbers
from paligemma_lib.data.text import cleaned, decoded

# Usual names of features. Those with "/" are from coco_captions of TFDS and from im2txt.
_USUAL: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "image/encoded", "image/data", "image_bytes", "jpg", "png"),
    "captions": ("captions", "captions/text", "caption", "image/caption", "text"),
    "image_id": ("image_id", "image/filename", "filename", "image/image_id", "image/id"),
}


def from_tfrecords(
    pattern: str,
    *,
    image: str = "",
    captions: str = "",
    image_id: str = "",
    prefix: str | None = None,
) -> Source:
    """Returns a source of TFRecord or ArrayRecord files of `tf.train.Example`s, sorted by name.

    Args:
      pattern: a path, with * and ? for several files.
      image, captions, image_id, prefix: names of the features, as for `from_tfds`. Records without
        an image id have their place as id.
    """
    return _TFRecordSource(image, captions, image_id, prefix, pattern)


def features_of(columns: Columns) -> dict[str, Any]:
    """Returns the arguments of `from_tfrecords` and `from_tfds` that name features.

    Raises:
      ValueError: a column of splits is named, which record files do not have.
    """
    if columns.split:
        raise ValueError(f"split_column={columns.split!r}: files of records have no such column")
    return {
        "image": columns.image,
        "captions": columns.caption,
        "image_id": columns.image_id,
        "prefix": columns.prompt or None,
    }


@dataclasses.dataclass(frozen=True)
class ExampleSource(abc.ABC):
    """Records that are `tf.train.Example`s.

    The fields hold the names of their features; "" stands for the first usual name that a record
    has.
    """

    image: str
    captions: str
    image_id: str
    prefix: str | None

    @abc.abstractmethod
    def _open(self) -> tuple[Records, np.ndarray]:
        """Returns the record files, and int64[n], the numbers of the records to use."""

    @functools.cached_property
    def _opened(self) -> tuple[Records, np.ndarray]:
        return self._open()

    def __len__(self) -> int:
        return len(self._opened[1])

    def read(self, numbers: Sequence[int]) -> list[Record]:
        check_numbers(numbers, len(self))
        # A split may be part of the files: record n of the source is record chosen[n] of the files.
        records, chosen = self._opened
        examples = records.read(chosen[number] for number in numbers)
        return [self._parse(*pair) for pair in zip(numbers, examples, strict=True)]

    def where(self, number: int) -> str:
        records, chosen = self._opened
        return records.where(chosen[number])

    def fingerprint(self) -> str:
        records, chosen = self._opened
        paths = list(map(str, records.paths))
        return sampled(fingerprint(*paths, *records.counts.tolist(), chosen), paths)

    def _parse(self, number: int, example: bytes) -> Record:
        try:
            features = _features(example)
            said = features[_name(features, "captions", self.captions)]
            named = bool(self.image_id) or any(name in features for name in _USUAL["image_id"])
            return Record(
                image=_one(features, "image", self.image),
                captions=tuple(cleaned(text) for text in map(decoded, said) if text.strip()),
                # Records without an id are known by their place.
                image_id=_one(features, "image_id", self.image_id).decode()
                if named
                else os.path.basename(self.where(number)),
                prefix=None
                if self.prefix is None
                else _one(features, "prefix", self.prefix).decode(),
            )
        except ValueError as error:
            raise ValueError(f"{self.where(number)} cannot be used: {error}") from error


@dataclasses.dataclass(frozen=True)
class _TFRecordSource(ExampleSource):
    pattern: str
    tolerant: bool = False  # whether truncated files are allowed

    def despite_damage(self) -> Source:
        """Returns the same source, which also opens truncated files; see `MayBeDamaged`."""
        return dataclasses.replace(self, tolerant=True)

    def _open(self) -> tuple[Records, np.ndarray]:
        records = open_records(glob_files(self.pattern), tolerant=self.tolerant)
        return records, np.arange(len(records))


def _features(serialized: bytes) -> Mapping[str, list[bytes]]:
    """Returns the values of all features, with integers as text."""
    # Parsing as a SequenceExample reads both messages: field 1 is a map of features in both. Field
    # 2, the feature lists, is missing in an Example.
    try:
        example = tf.train.SequenceExample.FromString(serialized)
    except Exception as error:  # DecodeError of protobuf, and what its C code raises
        raise ValueError(f"it is no tf.train.Example ({str(error)[:200]})") from error
    values = {name: _texts(feature) for name, feature in example.context.feature.items()}
    for name, steps in example.feature_lists.feature_list.items():
        values[name] = [value for step in steps.feature for value in _texts(step)]
    return values


def _texts(feature: tf.train.Feature) -> list[bytes]:
    # Image ids may be integers, as in COCO. Features of floats have no values here.
    if numbers := feature.int64_list.value:
        return [str(number).encode() for number in numbers]
    return list(feature.bytes_list.value)


def _name(features: Mapping[str, list[bytes]], what: str, given: str) -> str:
    """Returns the name of a feature: the given one, or the first usual one that is there."""
    names = (given,) if given else _USUAL[what]
    found = next((name for name in names if name in features), None)
    if found is None:
        raise ValueError(
            f"it has no feature {' or '.join(names)}, only {', '.join(sorted(features))[:200]}. "
            f"Name the one that holds the {what}"
        )
    return found


def _one(features: Mapping[str, list[bytes]], what: str, given: str) -> bytes:
    name = _name(features, what, given)
    values = features[name]
    if len(values) != 1:
        raise ValueError(f"its feature {name!r} has {len(values)} values, expected one")
    return values[0]
