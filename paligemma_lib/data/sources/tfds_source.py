"""Prepared data sets of TensorFlow Datasets.

source = from_tfds("flickr8k_tfds", split="train[:1200]")
source = from_tfds("coco_captions", split="train", captions="captions/text",
                   image_id="image/filename")
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from paligemma_lib.data.files import join
from paligemma_lib.data.records import Records, open_records
from paligemma_lib.data.sources.protocol import Source
from paligemma_lib.data.sources.tf_examples import ExampleSource


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


def splits_of_tfds(name: str, data_dir: str | None = None) -> dict[str, Source]:
    """The splits of a prepared data set by name; raises FileNotFoundError if it is not built."""
    import tensorflow_datasets as tfds

    splits = tfds.builder(name, data_dir=data_dir).info.splits
    if not splits:
        raise FileNotFoundError(f"{name} is not prepared: run `tfds build` first")
    return {split: from_tfds(name, split, data_dir=data_dir) for split in splits}


@dataclasses.dataclass(frozen=True)
class _TfdsSource(ExampleSource):
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
