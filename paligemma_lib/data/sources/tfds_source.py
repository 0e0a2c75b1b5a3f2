"""Reads prepared data sets of TensorFlow Datasets by number.

source = from_tfds("flickr8k_tfds", split="train[:1200]")
source = from_tfds("coco_captions", split="val")
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from paligemma_lib.data.files import join
from paligemma_lib.data.records import Records, open_records
from paligemma_lib.data.sources.json_forms import USUAL, Columns
from paligemma_lib.data.sources.protocol import Source
from paligemma_lib.data.sources.split_names import usual_split
from paligemma_lib.data.sources.tf_examples import ExampleSource, features_of
from paligemma_lib.data.sources.tfds_metadata import (
    builder_in,
    check_below,
    is_data_set,
    tfds_errors,
)

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def from_tfds(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    image: str = "",
    captions: str = "",
    image_id: str = "",
    prefix: str | None = None,
) -> Source:
    """Returns a source of a prepared data set of TensorFlow Datasets.

    Args:
      name: name as for `tfds.load`, such as "flickr8k_tfds/square224", or the folder that holds
        `dataset_info.json`.
      split: split as for `tfds.load`, such as "train[:1200]" or "validation+test".
      data_dir: folder of the TFDS data sets, if it is not the default one.
      image, captions, image_id, prefix: names of the features; "" stands for the usual names, and
        a `prefix` of None for none. "/" separates the parts of a nested name, as in `captions/text`
        of coco_captions. The captions may be one text or a sequence.
    """
    return _TfdsSource(image, captions, image_id, prefix, name, split, data_dir)


def splits_of_tfds(
    name: str, data_dir: str | None = None, columns: Columns = USUAL
) -> dict[str, Source]:
    """Returns the splits of a prepared data set by name.

    Args:
      name, data_dir: as for `from_tfds`.
      columns: names of the features, if they are not the usual ones.

    Raises:
      FileNotFoundError: the data set is not prepared.
    """
    splits = prepared_builder(name, data_dir).info.splits
    features = features_of(columns)
    return {split: from_tfds(name, split, data_dir=data_dir, **features) for split in splits}


def is_prepared(name: str, data_dir: str | None = None) -> bool:
    """Returns whether TFDS has prepared a data set of this name."""
    if not re.fullmatch(r"\w+([/:][\w.]+)*", name):
        return False
    import tensorflow_datasets as tfds  # here, since the import is slow

    place = data_dir or str(tfds.core.constants.DATA_DIR)
    return tf.io.gfile.isdir(join(place, re.split("[/:]", name)[0]))


def prepared_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a prepared data set; arguments are those of `from_tfds`.

    Raises:
      FileNotFoundError: TFDS does not know the data set, or it is not prepared.
      ValueError: the description of a data set in a folder is no regular file, or too large.
    """
    import tensorflow_datasets as tfds  # here, since the import is slow

    if is_data_set(name):
        return builder_in(name)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        prepared = bool(builder.info.splits)
    except tfds.core.registered.DatasetNotFoundError:
        # TFDS's own message lists a thousand data sets.
        place = data_dir or tfds.core.constants.DATA_DIR
        raise FileNotFoundError(
            f"{name} is not prepared in {place}: run `tfds build` first, or name the folder of the "
            "data set that holds dataset_info.json. If it is to be a path, nothing is there"
        ) from None
    except Exception as error:  # of its metadata, or of the code that builds it
        with tfds_errors(name):
            raise error
    if not prepared:
        raise FileNotFoundError(
            f"{name} is not prepared in {builder.data_dir}: run `tfds build` first"
        )
    return builder


@dataclasses.dataclass(frozen=True)
class _TfdsSource(ExampleSource):
    name: str
    split: str
    data_dir: str | None
    cut_off: bool = False  # whether truncated files are allowed

    def despite_damage(self) -> Source:
        """Returns the same source, which also opens truncated files.

        It can do so because the metadata of TFDS has the number of records of each file.
        """
        return dataclasses.replace(self, cut_off=True)

    def _open(self) -> tuple[Records, np.ndarray]:
        builder = prepared_builder(self.name, self.data_dir)
        splits = builder.info.splits
        # The validation images of coco_captions, for one, are in a split that is called val.
        alike = [name for name in splits if usual_split(name) == usual_split(self.split)]
        split = alike[0] if alike and self.split not in splits else self.split
        try:
            parts = splits[split].file_instructions
        except Exception as error:  # TFDS parses the text
            raise ValueError(
                f"{self.name} has no split {self.split!r}; it has {sorted(splits)}, and parts of "
                "them such as train[:100] or train[80%:]. If it is to be a path, nothing is there"
            ) from error
        if not sum(part.take for part in parts):
            raise ValueError(
                f"{self.name}: the split {self.split!r} has no records; it has {sorted(splits)}"
            )
        for part in parts:
            check_below(part.filename, str(builder.data_dir))
        held = {part.filename: part.examples_in_shard for part in parts}
        # A split such as train[:1]+train[9:] may name a file twice, but `held` opens it once.
        paths = sorted(held)
        records = open_records(paths, [held[path] for path in paths] if self.cut_off else None)
        # Number of the first record of each file: counts [3, 2, 4] give [0, 3, 5].
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
