"""How fast batches stream from each form of data, against decoding alone and against TFRecords.

    python benchmarks/forms_vs_decode_ceiling.py FOLDER TOKENIZER [--seconds 5] [--rounds 3]
    python benchmarks/forms_vs_decode_ceiling.py FOLDER TOKENIZER --latency 0.02

FOLDER has captions.txt and Images/, as `flickr8k_tfds` builds it. The same images are written in
every form. The ceiling is that of `stream_vs_decode_ceiling`. With --latency, every opening of a
file takes so many seconds more, as on a disk over a network; not those of pyarrow. Rounds take
turns; medians count. Targets: 0.9 of the ceiling from a disk, and 0.8 of TFRecords with 20 ms.
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


def write(records: list[Record], folder: Path) -> None:
    """Writes the records in each form, without splits."""
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
    table = pa.Table.from_pylist(cells)
    pq.write_table(table, folder / "rows.parquet", row_group_size=100)
    with pa.ipc.new_stream(folder / "saved.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for record in records:
            key = record.image_id.rpartition(".")[0]
            members = ((f"{key}.jpg", record.image), (f"{key}.txt", "\n".join(record.captions)))
            for name, data in members:
                data = data.encode() if isinstance(data, str) else data
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def opened(folder: str) -> dict[str, Source]:
    """Opens what `write` wrote, on a disk or elsewhere; elsewhere Arrow files cannot be."""
    forms = {
        "table": open_source(f"{folder}/lines.jsonl", images=f"{folder}/images"),
        "text beside": open_source(f"{folder}/images"),
        "parquet": open_source(f"{folder}/rows.parquet"),
        "webdataset": open_source(f"{folder}/shard.tar"),
    }
    if "://" not in folder:
        forms["arrow"] = open_source(f"{folder}/saved.arrow")
    return forms


def report(measured: dict[str, list[np.ndarray]], against: tuple[str, ...]) -> None:
    """Prints medians over the rounds, of `rates`."""
    for name, all_ in measured.items():
        ratios = {
            other: np.median(np.array(all_) / np.array(measured[other]), axis=0)
            for other in against
        }
        told = ", ".join(
            f"{ratio:.2f} of {other} (by processor time {by_processor:.2f})"
            for other, (ratio, by_processor) in ratios.items()
        )
        print(f"{name:<12} {np.median(all_, axis=0)[0]:6.0f} images/s, {told}")


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
        write(records.read(range(len(records))), Path(made))
        sources = opened(made)
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
    report(measured, ("ceiling", "tfrecords"))


if __name__ == "__main__":
    main()
