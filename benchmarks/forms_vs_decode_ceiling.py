"""How fast batches stream from each form of data, against decoding alone and against TFRecords.

    python benchmarks/forms_vs_decode_ceiling.py FOLDER TOKENIZER [--seconds 5] [--rounds 3]
    python benchmarks/forms_vs_decode_ceiling.py FOLDER TOKENIZER --latency 0.02

FOLDER has captions.txt and Images/, as `flickr8k_tfds` builds it. The same images are written in
every form. The ceiling is that of `stream_vs_decode_ceiling`. With --latency, every opening of a
file takes so many seconds more, as on storage over a network. Rounds take turns; medians count.
Targets: 0.9 of the ceiling from a disk, and 0.8 of TFRecords with 20 ms.
"""

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from stream_vs_decode_ceiling import BATCH, SIZE, built, ceiling, rates

import paligemma_lib as pg
from paligemma_lib.data import files
from paligemma_lib.data.sources import Record, Source, open_source


def written(records: list[Record], folder: Path) -> dict[str, Source]:
    """The records in each form, without splits."""
    images = folder / "images"
    images.mkdir()
    rows = [{"image": r.image_id, "suffix": list(r.captions)} for r in records]
    for record in records:
        (images / record.image_id).write_bytes(record.image)
        (images / record.image_id).with_suffix(".txt").write_text("\n".join(record.captions))
    (folder / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cells = [
        {"image": {"bytes": r.image, "path": r.image_id}, "caption": list(r.captions)}
        for r in records
    ]
    # datasets writes row groups of 100 rows for images.
    pq.write_table(pa.Table.from_pylist(cells), folder / "rows.parquet", row_group_size=100)
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for record in records:
            key = record.image_id.rpartition(".")[0]
            members = ((f"{key}.jpg", record.image), (f"{key}.txt", "\n".join(record.captions)))
            for name, data in members:
                data = data.encode() if isinstance(data, str) else data
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return {
        "table": open_source(str(folder / "lines.jsonl"), images=str(images)),
        "text beside": open_source(str(images)),
        "parquet": open_source(str(folder / "rows.parquet")),
        "webdataset": open_source(str(folder / "shard.tar")),
    }


def slow_down(seconds: float) -> None:
    """Makes every opening of a file by the library take longer."""
    for name in ("open_regular", "read_bounded"):
        real = getattr(files, name)

        def opened(*args, real=real):
            time.sleep(seconds)
            return real(*args)

        setattr(files, name, opened)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("tokenizer")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    args = parser.parse_args()
    tokenizer = pg.tokenizer.load(args.tokenizer)

    def stream(source: Source) -> Iterator:
        return pg.data.train_batches(
            source, tokenizer, image_size=SIZE, text_len=128, batch_size=BATCH, seed=0
        )

    with tempfile.TemporaryDirectory() as made:
        records = built(args.folder, "original", made)
        sources = written(records.read(range(len(records))), Path(made))
        runs = {"tfrecords": (stream, records)}
        runs |= {name: (stream, source) for name, source in sources.items()}
        decoding = ceiling(records)  # reads all images, so before files get slow
        slow_down(args.latency)
        measured: dict[str, list[np.ndarray]] = {name: [] for name in ["ceiling", *runs]}
        for number in range(args.rounds):
            measured["ceiling"].append(rates(decoding, args.seconds))
            for name, (make, source) in runs.items():
                measured[name].append(rates(make(source), args.seconds))
            print(f"round {number}:", {name: round(all_[-1][0]) for name, all_ in measured.items()})
    for name, all_ in measured.items():
        against = {
            other: np.median(np.array(all_) / np.array(measured[other]), axis=0)
            for other in ("ceiling", "tfrecords")
        }
        speed = np.median(all_, axis=0)[0]
        ratios = ", ".join(
            f"{ratio:.2f} of {other} (by processor time {by_processor:.2f})"
            for other, (ratio, by_processor) in against.items()
        )
        print(f"{name:<12} {speed:6.0f} images/s, {ratios}")


if __name__ == "__main__":
    main()
