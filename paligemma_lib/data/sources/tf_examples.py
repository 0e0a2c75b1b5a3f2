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
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.records import Records, open_records
from paligemma_lib.data.sources.protocol import Record, Source
from paligemma_lib.data.text import cleaned, decoded


def from_tfrecords(
    pattern: str,
    *,
    image: str = "image",
    captions: str = "captions",
    image_id: str = "image_id",
    prefix: str | None = None,
) -> Source:
    """Returns a source of TFRecord or ArrayRecord files of `tf.train.Example`s, sorted by name.

    Args:
      pattern: a path, with * and ? for several files.
      image, captions, image_id, prefix: names of the features, as for `from_tfds`.
    """
    return _TFRecordSource(image, captions, image_id, prefix, pattern)


@dataclasses.dataclass(frozen=True)
class ExampleSource(abc.ABC):
    """Records that are `tf.train.Example`s; the fields hold the names of their features."""

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
        # A split may be part of the files: record n of the source is record chosen[n] of the files.
        records, chosen = self._opened
        examples = records.read(chosen[number] for number in numbers)
        return [self._parse(*pair) for pair in zip(numbers, examples, strict=True)]

    def where(self, number: int) -> str:
        records, chosen = self._opened
        return records.where(chosen[number])

    def fingerprint(self) -> str:
        records, chosen = self._opened
        return fingerprint(*map(str, records.paths), *records.counts.tolist(), chosen)

    def _parse(self, number: int, example: bytes) -> Record:
        try:
            features = _features(example)
            said = _values(features, self.captions)
            return Record(
                image=_one(features, self.image),
                captions=tuple(cleaned(text) for text in map(decoded, said) if text.strip()),
                image_id=_one(features, self.image_id).decode(),
                prefix=None if self.prefix is None else _one(features, self.prefix).decode(),
            )
        except (ValueError, DecodeError) as error:
            raise ValueError(f"{self.where(number)} cannot be used: {error}") from error


@dataclasses.dataclass(frozen=True)
class _TFRecordSource(ExampleSource):
    pattern: str
    tolerant: bool = False  # whether truncated files are allowed

    def despite_damage(self) -> Source:
        """Returns the same source, which also opens truncated files; see `MayBeDamaged`."""
        return dataclasses.replace(self, tolerant=True)

    def _open(self) -> tuple[Records, np.ndarray]:
        paths = sorted(tf.io.gfile.glob(self.pattern))
        if not paths:
            raise FileNotFoundError(f"no file matches {self.pattern}")
        records = open_records(paths, tolerant=self.tolerant)
        return records, np.arange(len(records))


def _features(serialized: bytes) -> Mapping[str, list[bytes]]:
    """Returns the values of all features, with integers as text."""
    # Parsing as a SequenceExample reads both messages: field 1 is a map of features in both. Field
    # 2, the feature lists, is missing in an Example.
    example = tf.train.SequenceExample.FromString(serialized)
    values = {name: _texts(feature) for name, feature in example.context.feature.items()}
    for name, steps in example.feature_lists.feature_list.items():
        values[name] = [value for step in steps.feature for value in _texts(step)]
    return values


def _texts(feature: tf.train.Feature) -> list[bytes]:
    # Image ids may be integers, as in COCO. Features of floats have no values here.
    if numbers := feature.int64_list.value:
        return [str(number).encode() for number in numbers]
    return list(feature.bytes_list.value)


def _values(features: Mapping[str, list[bytes]], name: str) -> list[bytes]:
    if name not in features:
        raise ValueError(
            f"it has no feature {name!r} but {sorted(features)}; from_tfrecords(image=, captions=, "
            "image_id=, prefix=) reads others"
        )
    return features[name]


def _one(features: Mapping[str, list[bytes]], name: str) -> bytes:
    values = _values(features, name)
    if len(values) != 1:
        raise ValueError(f"its feature {name!r} has {len(values)} values, expected one")
    return values[0]
