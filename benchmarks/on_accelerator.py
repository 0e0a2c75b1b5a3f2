"""Proves and measures everything on one accelerator, in eight minutes.

    python benchmarks/on_accelerator.py --out results
    python benchmarks/on_accelerator.py --parts parity,training --minutes 4
    python benchmarks/on_accelerator.py --dry-run                 # tiny sizes, on the CPU

Each part is a process of its own with its own time limit, so one that fails or runs out of memory
costs nothing else. Results are appended to OUT/results.jsonl the moment they are known; at the end,
also after Ctrl-C or SIGTERM, OUT/table.md has them as docs/speed.md shows them. The parts, in order
of what they are worth:

    parity         our numbers on this device against the reference's, in float32 and in 16 bits
    training       PaliGemma 3B, attention alone: captions/s, MFU, memory as planned and measured
    training-peer  the same by transformers on PyTorch
    decoding       greedy and beams of 4: captions/s, MFU of the prompt, bandwidth of a token
    decoding-peer  the same by transformers' generate
    sizes          448 and 896 pixels, PaliGemma 2 3B
    small-card     with the memory held to 15 GiB, in float16: the largest batch
    compiling      seconds to the first step, with and without the compilation cache

The exit code is 0 if all parts succeeded, 1 if one failed, 2 for a wrong command.
"""

import argparse
import sys
from pathlib import Path

from accelerator.measuring import platform_of_jax
from accelerator.running import PARTS, Runner


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for all (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="(default: all)")
    parser.add_argument("--out", type=Path, default=Path("accelerator-results"))
    parser.add_argument(
        "--golden", type=Path, default=Path(__file__).parents[2] / "shared" / "golden",
        help="folder of paligemma{1,2}_tiny.npz, computed by the reference",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, on the CPU")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]}; parts are {', '.join(PARTS)}")
    if args.minutes <= 0:
        parser.error(f"--minutes {args.minutes}: expected more than 0")
    if not args.dry_run and platform_of_jax() == "cpu":
        parser.error("JAX sees no accelerator: pip install 'jax[cuda13]', or try --dry-run")
    return Runner(args.out, args.golden, args.dry_run).run(parts, 60 * args.minutes)


if __name__ == "__main__":
    sys.exit(main())
