"""Small data sets for the tests of `paligemma_lib.data`."""

import io
import struct
import zlib

import numpy as np
import tensorflow as tf
from PIL import Image

from paligemma_lib.testing import tiny_captions

DATA = [bytes([number]) * (10 * number) for number in range(20)]  # the first one is empty


def photo(number: int, size=(40, 30), form="PNG", **options) -> bytes:
    """The bytes of an image of smooth noise; each number gives another."""
    random = np.random.default_rng(number)
    noise = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8))
    buffer = io.BytesIO()
    noise.resize(size, Image.Resampling.BICUBIC).save(buffer, form, **options)
    return buffer.getvalue()


def slow_jpeg(scans: int = 101, size=(64, 48)) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    whole = photo(0, size, "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * (scans - whole.count(b"\xff\xda")) + whole[-2:]


def huge_png(width: int = 9_000, height: int = 8_000) -> bytes:
    """A small PNG that says it has this many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


def captions_of(number: int) -> list[str]:
    """One to five captions."""
    everything = tiny_captions()
    return [everything[(7 * number + k) % len(everything)] for k in range(1 + number % 5)]


def example(features: dict[str, list[bytes] | list[int]]) -> bytes:
    """A serialized `tf.train.Example`."""

    def feature(values):
        if isinstance(values[0] if values else b"", bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    named = {name: feature(values) for name, values in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def caption_example(number: int, image: bytes | None = None) -> bytes:
    """An image with its captions, in the features of `flickr8k_tfds`."""
    return example(
        {
            "image": [photo(number) if image is None else image],
            "image_id": [f"{number}.png".encode()],
            "captions": [caption.encode() for caption in captions_of(number)],
        }
    )


def write_tfrecord(path, records: list[bytes]) -> str:
    """Writes a TFRecord file and returns its path."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def write_records(folder) -> list[str]:
    """`DATA` in three files, of which the second is empty."""
    parts = {"a": DATA[:7], "b": [], "c": DATA[7:]}
    return [write_tfrecord(folder / f"{name}.tfrecord", part) for name, part in parts.items()]


def write_captions(folder, count: int, files: int = 2, broken: tuple[int, ...] = ()) -> str:
    """Writes `count` images with captions into TFRecord files; returns their pattern."""
    records = [
        caption_example(number, b"no image" if number in broken else None)
        for number in range(count)
    ]
    for file, part in enumerate(np.array_split(np.arange(count), files)):
        write_tfrecord(f"{folder}/captions-{file}.tfrecord", [records[n] for n in part])
    return f"{folder}/captions-*.tfrecord"
