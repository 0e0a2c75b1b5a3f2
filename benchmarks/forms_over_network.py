"""How fast batches stream from each form of data on remote storage, against TFRecords there.

    python benchmarks/forms_over_network.py FOLDER TOKENIZER [--latency 0.02] [--seconds 5]

FOLDER has captions.txt and Images/, as `flickr8k_tfds` builds it. The same images are written in
every form to TensorFlow's ram://, which the library reads as it reads gs://, and every request
takes so many seconds more. A request is what it is on gs://: a look at a file, or a read, which
brings 512 KiB at least and serves later reads of the same open file. Rounds take turns; medians
count. What is read once, when data are opened, does not count.
Target: 0.8 of TFRecords with 20 ms.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from forms_vs_decode_ceiling import opened, report, write
from stream_vs_decode_ceiling import BATCH, SIZE, built, rates

import paligemma_lib as pg
from paligemma_lib.data.sources import Source

REMOTE = "ram://forms"
_BUFFER = 512 << 10  # of TensorFlow's files


class Requests:
    """Makes requests to TensorFlow's file systems take longer, and counts them."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.count, self._lock = seconds, 0, threading.Lock()

    def wait(self) -> None:
        with self._lock:
            self.count += 1
        time.sleep(self.seconds)

    def slow_down(self) -> None:
        requests = self

        class Slow(tf.io.gfile.GFile):
            held = range(0)

            def read(self, n: int = -1) -> bytes:
                at = self.tell()
                if at not in self.held or at + n > self.held.stop:
                    requests.wait()
                    self.held = range(at, at + max(n, _BUFFER))
                return super().read(n)

        tf.io.gfile.GFile = Slow
        for name in ("stat", "isdir", "listdir"):
            setattr(tf.io.gfile, name, self._slow(getattr(tf.io.gfile, name)))

    def _slow(self, look: Callable) -> Callable:
        def asked(path: str):
            self.wait()
            return look(path)

        return asked


def copied(folder: Path) -> None:
    for path in filter(Path.is_file, folder.rglob("*")):
        with tf.io.gfile.GFile(f"{REMOTE}/{path.relative_to(folder)}", "wb") as file:
            file.write(path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("tokenizer")
    parser.add_argument("--latency", type=float, default=0.02, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    tokenizer = pg.tokenizer.load(args.tokenizer)

    def stream(source: Source) -> Iterator:
        return pg.data.train_batches(
            source, tokenizer, image_size=SIZE, text_len=128, batch_size=BATCH, seed=0
        )

    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as forms:
        records = built(args.folder, "original", made)
        write(records.read(range(len(records))), Path(forms))
        for number, path in enumerate(sorted(Path(made).rglob("*.tfrecord-*"))):
            (Path(forms) / f"records-{number}.tfrecord").write_bytes(path.read_bytes())
        copied(Path(forms))
    sources = {"tfrecords": pg.data.from_tfrecords(f"{REMOTE}/*.tfrecord"), **opened(REMOTE)}
    for source in sources.values():
        source.read([0])  # opens it
    requests = Requests(args.latency)
    requests.slow_down()
    measured: dict[str, list[np.ndarray]] = {name: [] for name in sources}
    for number in range(args.rounds):
        asked = {}
        for name, source in sources.items():
            before = requests.count
            measured[name].append(rates(stream(source), args.seconds))
            asked[name] = requests.count - before
        print(f"round {number}:", {name: round(all_[-1][0]) for name, all_ in measured.items()})
        print("requests:", asked)
    report(measured, ("tfrecords",))


if __name__ == "__main__":
    main()
