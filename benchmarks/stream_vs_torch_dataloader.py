"""How fast batches stream, against Hugging Face's PaliGemma processing in a PyTorch DataLoader.

    python benchmarks/stream_vs_torch_dataloader.py FOLDER TOKENIZER --peer-python PYTHON

PYTHON is the interpreter of an environment with torch, transformers, sentencepiece and Pillow but
without torchvision. FOLDER has captions.txt and Images/. The peer runs in a process of its own with
two workers, one caption per example, as its users do; ours packs all captions of an image. They
take turns, and each throws away what it had made ahead; medians count.
Targets: 1.2 times the images, 5 times the captions per second.
"""

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

SIZE, TEXT, BATCH, WORKERS = 224, 128, 32, 2


def rate(batches: Iterator, seconds: float) -> float:
    """Images per second."""
    for _ in range(8):  # what was made ahead
        next(batches)
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        next(batches)
        count += BATCH
    return count / passed


def peer(folder: str, tokenizer: str) -> None:
    """Answers each line of seconds with a rate; runs in the other environment."""
    import torch
    from PIL import Image
    from transformers import GemmaTokenizer, PaliGemmaProcessor, SiglipImageProcessorPil

    with open(os.path.join(folder, "captions.txt"), newline="") as file:
        rows = list(csv.DictReader(file))
    with tempfile.TemporaryDirectory() as home:
        shutil.copy(tokenizer, os.path.join(home, "tokenizer.model"))
        pieces = GemmaTokenizer.from_pretrained(home)
    half = [0.5, 0.5, 0.5]
    images = SiglipImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, image_mean=half, image_std=half
    )
    images.image_seq_length = 256
    processor = PaliGemmaProcessor(images, pieces)

    class Captions(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, number: int):
            path = os.path.join(folder, "Images", rows[number]["image"])
            return Image.open(path).convert("RGB"), rows[number]["caption"]

    def collate(examples):
        images, captions = zip(*examples, strict=True)
        return processor(
            images=list(images),
            text=["<image>caption en"] * len(images),
            suffix=list(captions),
            return_tensors="pt",
            padding="max_length",
            max_length=images.image_seq_length + TEXT,
        )

    loader = torch.utils.data.DataLoader(
        Captions(), BATCH, shuffle=True, num_workers=WORKERS, collate_fn=collate, drop_last=True
    )

    def endless() -> Iterator:
        while True:
            yield from loader

    batches = endless()
    next(batches)
    print("ready", flush=True)
    for line in sys.stdin:
        print(rate(batches, float(line)), flush=True)


def ask_peer(args: argparse.Namespace) -> Callable[[float], float]:
    command = [args.peer_python, __file__, args.folder, args.tokenizer, "--peer"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{' '.join(command)} failed: see above")

    def ask(seconds: float) -> float:
        print(seconds, file=process.stdin, flush=True)
        return float(process.stdout.readline())

    return ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("tokenizer")
    parser.add_argument("--peer-python", help="interpreter of the peer's environment")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.peer:
        return peer(args.folder, args.tokenizer)
    if not args.peer_python:
        parser.error("--peer-python is required")

    import paligemma_lib as pg

    source = pg.data.from_folder(args.folder)
    tokenizer = pg.tokenizer.load(args.tokenizer)
    captions = statistics.mean(len(r.captions) for r in source.read(range(len(source))))
    ours = pg.data.train_batches(
        source, tokenizer, image_size=SIZE, text_len=TEXT, batch_size=BATCH, seed=0
    )
    ask = ask_peer(args)
    rates: list[tuple[float, float]] = []
    for number in range(args.rounds):
        rates.append((rate(ours, args.seconds), ask(args.seconds)))
        print(f"round {number}: ours {rates[-1][0]:.0f}, peer {rates[-1][1]:.0f} images/s")
    ratios = [one / other for one, other in rates]
    ratio = statistics.median(ratios)
    print(f"ratio per image: {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"ratio per caption: {ratio * captions:.2f} (packed, {captions:.1f} captions an image)")


if __name__ == "__main__":
    main()
