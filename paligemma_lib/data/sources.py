"""Where images and captions come from: records by number, all of one form.

    source = from_tfds("flickr8k_tfds", split="train[:1200]")
    source = from_tfds("coco_captions", split="train", captions="captions/text",
                       image_id="image/filename")
    source = from_tfrecords("gs://bucket/captions-*.tfrecord")
    len(source), source.read([17, 3])

Making a source reads nothing; the first look at its length or records does. Equal arguments make
equal sources. Images stay encoded. What cannot be read raises an error that says which record,
in which file. `tables.py` has the sources that are no record files.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from paligemma_lib.data.files import join
from paligemma_lib.data.fingerprints import fingerprint
from paligemma_lib.data.records import Records, open_records


@dataclasses.dataclass(frozen=True)
class Record:
    """One image with what is said of it.

    Attributes:
      image: the bytes of an image file.
      captions: suffixes; none for an image that is only to be captioned.
      image_id: what the data set calls the image.
      prefix: the prompt, where the data set gives one.
    """

    image: bytes
    captions: tuple[str, ...]
    image_id: str
    prefix: str | None = None


@runtime_checkable
class Source(Protocol):
    """Records by number. Whatever has these methods is a source; none has to be derived from it.

    Threads read at the same time. Numbers must keep their records while the fingerprint stays the
    same, for the order of training is an order of numbers.
    """

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> list[Record]:
        """The records with these numbers, counted from 0.

        Raises:
          ValueError, FileNotFoundError: a record cannot be read; the message says which.
        """
        ...

    def where(self, number: int) -> str:
        """File and place of a record, for messages."""
        ...

    def fingerprint(self) -> str:
        """Digits that change when records are added, removed or changed."""
        ...


def from_tfds(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    image: str = "image",
    captions: str = "captions",
    image_id: str = "image_id",
    prefix: str | None = None,
) -> Source:
    """A prepared TensorFlow Datasets data set.

    Args:
      name: as for `tfds.load`, such as "flickr8k_tfds/square224", or the folder that holds
        `dataset_info.json`.
      split: as for `tfds.load`, such as "train[:1200]" or "validation+test".
      data_dir: where TFDS keeps data sets, if not in its usual place.
      image, captions, image_id, prefix: names of the features, nested ones with "/" between:
        `captions/text` in coco_captions. The captions may be one text or a sequence.
    """
    return _TfdsSource(image, captions, image_id, prefix, name, split, data_dir)


def from_tfrecords(
    pattern: str,
    *,
    image: str = "image",
    captions: str = "captions",
    image_id: str = "image_id",
    prefix: str | None = None,
) -> Source:
    """Files of `tf.train.Example`s, TFRecord or ArrayRecord, in the order of their names.

    Args:
      pattern: a path, with * and ? for several files.
      image, captions, image_id, prefix: names of the features, as for `from_tfds`.
    """
    return _TFRecordSource(image, captions, image_id, prefix, pattern)


@dataclasses.dataclass(frozen=True)
class _ExampleSource(Source):
    """Records that are `tf.train.Example`s; the fields are the names of their features."""

    image: str
    captions: str
    image_id: str
    prefix: str | None

    def _open(self) -> tuple[Records, np.ndarray]:
        """The record files, and which of their records are meant: int64[n]."""
        raise NotImplementedError

    @functools.cached_property
    def _opened(self) -> tuple[Records, np.ndarray]:
        return self._open()

    def __len__(self) -> int:
        return len(self._opened[1])

    def read(self, numbers: Sequence[int]) -> list[Record]:
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
            features = tf.train.Example.FromString(example).features.feature
            return Record(
                image=_one(features, self.image),
                captions=tuple(caption.decode() for caption in _values(features, self.captions)),
                image_id=_one(features, self.image_id).decode(),
                prefix=None if self.prefix is None else _one(features, self.prefix).decode(),
            )
        except (ValueError, DecodeError) as error:
            raise ValueError(f"{self.where(number)} cannot be used: {error}") from error


@dataclasses.dataclass(frozen=True)
class _TFRecordSource(_ExampleSource):
    pattern: str

    def _open(self) -> tuple[Records, np.ndarray]:
        paths = sorted(tf.io.gfile.glob(self.pattern))
        if not paths:
            raise FileNotFoundError(f"no file matches {self.pattern}")
        records = open_records(paths)
        return records, np.arange(len(records))


@dataclasses.dataclass(frozen=True)
class _TfdsSource(_ExampleSource):
    name: str
    split: str
    data_dir: str | None
    cut_off: bool = False  # whether files may be

    def despite_damage(self) -> Source:
        """The same, usable also where files are cut off: it is known what they should hold."""
        return dataclasses.replace(self, cut_off=True)

    def _open(self) -> tuple[Records, np.ndarray]:
        import tensorflow_datasets as tfds  # slow to import, and only needed here

        if tf.io.gfile.exists(join(self.name, "dataset_info.json")):
            builder = tfds.builder_from_directory(self.name)
        else:
            builder = tfds.builder(self.name, data_dir=self.data_dir)
        splits = builder.info.splits
        if not splits:
            raise FileNotFoundError(
                f"{self.name} is not prepared in {builder.data_dir}: run `tfds build` first"
            )
        try:
            parts = splits[self.split].file_instructions
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{self.name} has no split {self.split!r}; it has {sorted(splits)}, and parts of "
                "them such as train[:100] or train[80%:]"
            ) from error
        held = {part.filename: part.examples_in_shard for part in parts}
        paths = sorted(held)  # one may come twice: a[:1]+a[9:]
        records = open_records(paths, [held[path] for path in paths] if self.cut_off else None)
        first = dict(zip(paths, np.cumsum(records.counts) - records.counts, strict=True))
        count = dict(zip(paths, records.counts, strict=True))
        for part in parts:
            if count[part.filename] != part.examples_in_shard:
                raise ValueError(
                    f"{part.filename} holds {count[part.filename]} records, dataset_info.json "
                    f"says {part.examples_in_shard}: build the data set again"
                )
        chosen = [first[part.filename] + part.skip + np.arange(part.take) for part in parts]
        return records, np.concatenate(chosen)


def _values(features: Mapping[str, tf.train.Feature], name: str) -> list[bytes]:
    if name not in features:
        raise ValueError(
            f"it has no feature {name!r} but {sorted(features)}; say which is which by image=, "
            "captions=, image_id= and prefix="
        )
    if numbers := features[name].int64_list.value:
        return [str(number).encode() for number in numbers]
    return list(features[name].bytes_list.value)


def _one(features: Mapping[str, tf.train.Feature], name: str) -> bytes:
    values = _values(features, name)
    if len(values) != 1:
        raise ValueError(f"its feature {name!r} has {len(values)} values, expected one")
    return values[0]
