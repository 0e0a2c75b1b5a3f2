"""Checks the data of a run before it starts: files are complete, images decode, captions exist.

print(verified("flickr8k_tfds", data_dir=""))
check_sample("train", source)
"""

import json
from collections.abc import Mapping

import tensorflow as tf

from paligemma_lib.data.files import join, read_whole, stat
from paligemma_lib.data.replacing import Replacing, check_decodes
from paligemma_lib.data.sources import Source, is_path
from paligemma_lib.data.sources.data_path import split_path
from paligemma_lib.data.sources.protocol import read_texts
from paligemma_lib.data.sources.split_names import ALIASES, usual_split
from paligemma_lib.data.sources.tfds_metadata import tfds_errors
from paligemma_lib.data.sources.tfds_source import prepared_builder
from paligemma_lib.data.storage_errors import storage_errors
from paligemma_lib.metrics.tasks import Task
from paligemma_lib.regions import parse_regions
from paligemma_lib.run.data_config import DataConfig
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.put_aside import put_aside

REPORT = "verification.json"  # flickr8k_tfds writes it into the data set's folder

_SAMPLE = 8  # records of a source whose images are decoded
_FRAME = 16  # bytes around each record of a TFRecord file: 8 of length, 4 + 4 of checksums
_MAX_REPORT_BYTES = 1 << 30


def check_drawn(config: DataConfig) -> None:
    """Raises ValueError if a split of images that are still to be drawn will not be among them."""
    for field in ("train", "validation", "test"):
        name = getattr(config, field)
        for part in name.split("+"):
            if usual_split(part.partition("[")[0].strip()) not in (*ALIASES, "all"):
                raise ValueError(
                    f"data.{field}={name!r}: images that are drawn have no such split, only "
                    f"{', '.join(ALIASES)}. If it is to be a path, nothing is there, or "
                    "data.kind=sample is to be left out"
                )


def verified(name: str, data_dir: str) -> str:
    """Compares file sizes of a TFDS data set with those of its build.

    Args:
      name: as for `from_tfds`.
      data_dir: folder in which TFDS stores data sets; "": the default of TFDS.

    Returns:
      A summary of the verification report; "" if the data set has none, or a damaged one, which is
      put aside.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is truncated, or the report is from another build.
    """
    builder = prepared_builder(name, data_dir or None)
    with tfds_errors(name):
        framed = builder.info.file_format.value == "tfrecord"
        splits = {split.name: split for split in builder.info.splits.values()}
        counts = {name: split.num_examples for name, split in splits.items()}
        paths = {name: list(map(str, split.filepaths)) for name, split in splits.items()}
    for split in splits if framed else ():
        size = sum(stat(path)[0] for path in paths[split])
        expected = splits[split].num_bytes + _FRAME * counts[split]
        if size < expected:
            raise ValueError(
                f"split {split} in {builder.data_dir} has {size:,} bytes, but had "
                f"{expected:,} when it was built: copy it again or rebuild it"
            )
    path = join(str(builder.data_dir), REPORT)
    with storage_errors(path):
        if not tf.io.gfile.exists(path):
            return ""
    return _told(path, counts)


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
            f"{split}: none of {len(numbers)} records has a caption; the first is "
            f"{source.where(0)}. Training and scoring need captions"
        )


def check_regions(source: Source, count: int, task: Task) -> None:
    """Looks for a box or a mask in the texts of test images, up to the first one that has any.

    Args:
      source: the test images.
      count: number of images that are scored; 0: all.
      task: "detect" scores boxes, "segment" masks.

    Raises:
      ValueError: none has any, so that there would be nothing to score after training.
    """
    count = min(count or len(source), len(source))
    for number in range(count):
        try:
            (record,) = read_texts(source, [number])
        except (ValueError, OSError):
            continue  # damaged, or not to be read now: told by the checks that decode images
        regions = [region for text in record.captions for region in parse_regions(text)]
        if any(region.mask or task == "detect" for region in regions):
            return
    one, tokens = {
        "detect": ("box", "boxes, four <loc> tokens each"),
        "segment": ("mask", "masks, four <loc> and 16 <seg> tokens each"),
    }[task]
    raise ValueError(
        f"test: none of {count:,} images has a text with a {one}, the first is {source.where(0)}. "
        f"task={task} scores {tokens}; leave the task out, or use other data"
    )


def shared_images(config: DataConfig, data: Mapping[str, Source]) -> str:
    """Returns a sentence about images of `train` that are in other splits of the same data, too.

    It is "" if there are none, and for sources that do not know the names of their images.
    """
    train, trained = split_path(config.train)[0], _images(data["train"])
    found = []
    for split in ("validation", "test"):
        path = getattr(config, split)
        # Another path is of other data. The same words mean that all splits are to be the same.
        apart = is_path(path) and (path == config.train or split_path(path)[0] != train)
        if not apart and (count := len(trained & _images(data[split]))):
            found.append(f"{count:,} of {split}")
    return f"images to train on are in other splits, too: {', '.join(found)}" if found else ""


def _images(source: Source) -> set[str]:
    source = source.source if isinstance(source, Replacing) else source
    names = getattr(source, "images_of_records", None)
    return set(names()) if names else set()


def _told(path: str, counts: dict[str, int]) -> str:
    """Returns the verification report in one sentence; "" if it is damaged.

    Args:
      path: path of the report.
      counts: number of images of each split, from dataset_info.json.

    Raises:
      ValueError: the report has other counts.
    """
    try:
        report = json.loads(read_whole(path, _MAX_REPORT_BYTES))
        # Reports written before 2026-11-28 have the key "pictures" instead of "images".
        reported = {
            name: split["images" if "images" in split else "pictures"]
            for name, split in report["splits"].items()
        }
        left_out, flickr8k = len(report["left_out"]), report["flickr8k"]
        whole = bool(flickr8k and flickr8k["complete"])
    except OSError:
        raise
    except Exception as error:  # whatever stands there: the data themselves may be whole
        put_aside(path_of(path), f"no verification report: {str(error)[:200]}")
        return ""
    if reported != counts:
        raise ValueError(
            f"{path} counts {reported} images, but dataset_info.json counts {counts}: they are "
            "from different builds; rebuild the data set"
        )
    complete = "Flickr8k is complete, " if whole else ""
    return f"{complete}{left_out:,} left out when it was built"
