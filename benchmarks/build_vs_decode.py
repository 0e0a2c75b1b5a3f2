"""How fast `tfds build` packs images, against decoding the same images on all cores.

    python benchmarks/build_vs_decode.py FOLDER_OR_ZIP [--repeat 3]
    python benchmarks/build_vs_decode.py --made-up 50000 --repeat 1

Each round builds the data set and a data set of one image, in processes of their own, and takes
the difference as the time that the images cost beyond TFDS's start-up. It takes thousands of images
to tell. The ratio is the build's rate to the decoding rate (target: 0.9). Where other programs
share the cores, the ratio of processor times is steadier. Peak memory is that of the building
process.
"""

import argparse
import csv
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from flickr8k_tfds.layout import Layout, locate
from flickr8k_tfds.trees import MAX_IMAGE_BYTES


def build_seconds(manual_dir: Path, config: str) -> tuple[float, float, float]:
    """Builds in a process of its own: (wall seconds, processor seconds, peak resident GiB)."""
    with tempfile.TemporaryDirectory() as data_dir:
        command = [str(Path(sys.executable).with_name("tfds")), "build", "flickr8k_tfds"]
        command += [f"--manual_dir={manual_dir}", f"--data_dir={data_dir}", f"--config={config}"]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} failed: run it by hand to see why")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def decode_seconds(layout: Layout) -> tuple[float, float]:
    """Reads and decodes every image on all cores: (wall seconds, processor seconds)."""

    def decode(file) -> None:
        Image.open(io.BytesIO(file.read(MAX_IMAGE_BYTES))).load()

    start, before = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, layout.images.values()))
    return time.perf_counter() - start, time.process_time() - before


def one_image(layout: Layout, folder: Path) -> Path:
    """A data set of the first image alone."""
    name, file = next(iter(layout.images.items()))
    (folder / "Images").mkdir()
    (folder / "Images" / name).write_bytes(file.read(MAX_IMAGE_BYTES))
    with open(folder / "captions.txt", "w", newline="") as table:
        csv.writer(table).writerows([("image", "caption"), (name, "One image .")])
    return folder


def made_up(count: int, folder: Path) -> Path:
    """A data set of `count` distinct images of some 40 KB, for want of a large one."""
    (folder / "Images").mkdir()
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (180, 180, 3), np.uint8)).save(buffer, "JPEG", quality=90)
    start, rest = buffer.getvalue()[:2], buffer.getvalue()[2:]
    with open(folder / "captions.txt", "w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(("image", "caption"))
        for number in range(count):
            comment = b"\xff\xfe\x00\x0a%08d" % number  # a comment makes the file unique
            name = f"made_up_{number:06}.jpg"
            (folder / "Images" / name).write_bytes(start + comment + rest)
            rows.writerows((name, f"Caption {k} of image {number} .") for k in range(5))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("manual_dir", type=Path, nargs="?")
    source.add_argument("--made-up", type=int, metavar="COUNT")
    parser.add_argument("--config", default="original")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as many:
        manual_dir = args.manual_dir or made_up(args.made_up, Path(many))
        layout = locate(manual_dir)
        count = len(layout.images)
        ratios = []
        single = one_image(layout, Path(one))
        for _ in range(args.repeat):
            start_up, unbuilt, _ = build_seconds(single, args.config)
            build, built, peak = build_seconds(manual_dir, args.config)
            decode, decoded = decode_seconds(layout)
            ratios.append(decode / (build - start_up))
            print(
                f"{count} images: build {build:.1f} s including {start_up:.1f} s of start-up, "
                f"decoding alone {decode:.2f} s; peak {peak:.2f} GiB; ratio {ratios[-1]:.2f}, "
                f"of processor times {decoded / (built - unbuilt):.2f}",
                flush=True,
            )
    print(f"median ratio of build rate to decoding rate: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
