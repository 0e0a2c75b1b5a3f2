"""How fast batches stream, against decoding and resizing the same images and doing nothing else.

    python benchmarks/stream_vs_decode_ceiling.py FOLDER TOKENIZER [--seconds 10] [--rounds 5]

FOLDER is a data set that `flickr8k_tfds` can build (captions.txt and Images/). It is built twice,
with the original files and with square224. The ceiling is tf.data's map over images that are in
memory already, with the same function and as many threads. Rounds take turns; medians count. On a
machine that others use too, the ratio of processor time is the steadier one.
Targets: originals at 0.9 of their ceiling; square224 at 3 times the originals.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import flickr8k_tfds
import paligemma_lib as pg
from paligemma_lib.data.image import to_pixels

SIZE, BATCH = 224, 32


def built(folder: str, config: str, data_dir: str):
    """All splits of the data set as a source."""
    builder = flickr8k_tfds.Builder(config=config, data_dir=data_dir)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
    return pg.data.from_tfds(str(builder.data_path), split="+".join(builder.info.splits))


def ceiling(source) -> Iterator:
    images = [record.image for record in source.read(range(len(source)))]
    return (
        tf.data.Dataset.from_tensor_slices(images)
        .repeat()
        .map(lambda data: to_pixels(data, size=SIZE, dtype="float32"), os.cpu_count())
        .batch(BATCH, drop_remainder=True)
        .prefetch(2)
        .as_numpy_iterator()
    )


def rates(batches: Iterator, seconds: float) -> np.ndarray:
    """Images per second, and per second of processor time."""
    for _ in range(5):  # what was made ahead
        next(batches)
    start, used, count = time.perf_counter(), time.process_time(), 0
    while (passed := time.perf_counter() - start) < seconds:
        next(batches)
        count += BATCH
    return count / np.array([passed, time.process_time() - used])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("tokenizer")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    tokenizer = pg.tokenizer.load(args.tokenizer)

    with tempfile.TemporaryDirectory() as data_dir:
        original, square = (
            built(args.folder, config, data_dir) for config in ("original", "square224")
        )

        def stream(source) -> Iterator:
            return pg.data.train_batches(
                source, tokenizer, image_size=SIZE, text_len=128, batch_size=BATCH, seed=0
            )

        runs = {
            "originals": (stream, original),
            "their ceiling": (ceiling, original),
            "square224": (stream, square),
            "its ceiling": (ceiling, square),
        }
        measured: dict[str, list[np.ndarray]] = {name: [] for name in runs}
        for number in range(args.rounds):
            for name, (make, source) in runs.items():
                measured[name].append(rates(make(source), args.seconds))
            print(f"round {number}:", {name: round(all_[-1][0]) for name, all_ in measured.items()})

    for name, all_ in measured.items():
        speed, by_processor = np.median(all_, axis=0)
        print(
            f"{name:<14} {speed:6.0f} images/s, {1000 / by_processor:.2f} ms of processor time each"
        )
    for one, other in (
        ("originals", "their ceiling"),
        ("square224", "its ceiling"),
        ("square224", "originals"),
    ):
        ratios = np.array(measured[one]) / np.array(measured[other])
        speed, by_processor = np.median(ratios, axis=0)
        spread = f"({ratios[:, 0].min():.2f} to {ratios[:, 0].max():.2f})"
        print(f"ratio {one} / {other}: {speed:.2f} {spread}, by processor time {by_processor:.2f}")


if __name__ == "__main__":
    main()
