"""How long the first batch takes at a late step, against step 0; and whether memory stays flat.

    python benchmarks/first_batch_wait.py FOLDER TOKENIZER [--step 10000] [--batches 10000]

FOLDER has captions.txt and Images/. Every wait is that of a new pipeline over an opened source, in
turns for both steps, after one to warm up; medians count (target: at most 1.2). Memory is what the
process holds after 500 batches of small images, and after all.
"""

import argparse
import statistics
import time

import paligemma_lib as pg


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("tokenizer")
    parser.add_argument("--step", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    tokenizer = pg.tokenizer.load(args.tokenizer)
    source = pg.data.from_folder(args.folder)
    print(f"{len(source)} images")

    def stream(step: int, image_size: int, batch_size: int):
        return pg.data.train_batches(
            source,
            tokenizer,
            image_size=image_size,
            text_len=128,
            batch_size=batch_size,
            seed=0,
            start_step=step,
        )

    waits: dict[int, list[float]] = {0: [], args.step: []}
    for number in range(args.rounds + 1):
        for step, seconds in waits.items():
            start = time.perf_counter()
            batches = stream(step, 224, 32)
            next(batches)
            if number:
                seconds.append(time.perf_counter() - start)
            del batches
    for step, seconds in waits.items():
        print(f"first batch at step {step:>6}: {statistics.median(seconds):.3f} s")
    ratio = statistics.median(waits[args.step]) / statistics.median(waits[0])
    print(f"ratio: {ratio:.2f}")

    batches = stream(0, 64, 8)
    held = {}
    for number in range(1, args.batches + 1):
        next(batches)
        if number in (500, args.batches // 2, args.batches):
            held[number] = resident_mib()
    print("MiB held after batches:", {number: round(mib) for number, mib in held.items()})
    print(f"ratio after {args.batches} to after 500: {held[args.batches] / held[500]:.3f}")


if __name__ == "__main__":
    main()
