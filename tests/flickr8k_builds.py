"""Building small data sets by `flickr8k_tfds`, and reading what was built."""

import json
import subprocess
import sys
from pathlib import Path

import tensorflow_datasets as tfds
from flickr8k_sources import TEST, TRAIN, VALIDATION, image

import flickr8k_tfds

ROOT = Path(flickr8k_tfds.__file__).parents[1]
SKIP = {"image": tfds.decode.SkipDecoding()}
IMAGES = {
    TRAIN: image("red"),
    VALIDATION: image("green", size=(12, 16)),
    TEST: image(128, mode="L"),
}


def build(manual_dir, data_dir, config=None, file_format=None, **options):
    builder = flickr8k_tfds.Builder(data_dir=data_dir, config=config, file_format=file_format)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir, **options)
    )
    return builder


def examples(builder, split="all"):
    """Undecoded examples by image_id."""
    data = tfds.as_numpy(builder.as_dataset(split=split, decoders=SKIP))
    return {example["image_id"].decode(): example for example in data}


def tfds_build(manual_dir, data_dir, *flags, **options):
    """Starts the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tensorflow_datasets.scripts.cli.main", "build", "flickr8k_tfds"]
        + [f"--manual_dir={manual_dir}", f"--data_dir={data_dir}", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def report_of(builder):
    return json.loads((builder.data_path / "verification.json").read_text())


def own_images(count: int) -> dict[str, bytes]:
    return {f"own{i:03}.png": image((i, 0, 0), form="PNG") for i in range(count)}
