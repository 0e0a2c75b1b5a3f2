"""Draws scenes with five captions each, in the layout of Kaggle's Flickr8k, to try things out.

The wordings boxes, masks and questions write prompts with their answers instead, in boxes.jsonl,
masks.jsonl and questions.jsonl.

  paligemma sample-data scenes
  paligemma sample-data scenes --count 200 --seed 7
  paligemma sample-data boxes --wording boxes
  paligemma sample-data masks --wording masks --masks vae-oid.npz

Image k depends on the seed and k only, so a larger count only adds images.
"""

import argparse
from pathlib import Path

from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.data_options import MASKS as PUBLISHED
from paligemma_lib.cli.data_options import codec_in
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.visible_text import visible
from paligemma_lib.sample_data import WORDINGS, write_scenes
from paligemma_lib.sample_data.scene_files import CAPTIONS, MASKS

USAGE = "FOLDER [options]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("folder", type=Path, help="output folder; created if it does not exist")
    parser.add_argument(
        "--count", type=int, default=1500, help="number of images (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the scenes (default: %(default)s)"
    )
    parser.add_argument(
        "--wording",
        choices=WORDINGS,
        default="sentences",
        help="style of the captions, or kind of the prompts",
    )
    parser.add_argument("--masks", metavar="NPZ", help="vae-oid.npz, for --wording masks")


def run(args: argparse.Namespace) -> int:
    """Draws the scenes; returns the exit code."""
    if args.count < 1:
        raise WrongUse(f"--count={args.count}: expected at least 1")
    if args.seed < 0:
        raise WrongUse(f"--seed={args.seed}: expected 0 or more")
    if args.wording == MASKS and not args.masks:
        raise WrongUse(f"--wording masks needs --masks: {PUBLISHED}, or a copy of it")
    if args.wording != MASKS and args.masks:
        raise WrongUse(
            "--masks has no effect without --wording masks: give it too, or leave it out"
        )
    codec = codec_in(args.masks)
    folder = write_scenes(args.folder, args.count, args.seed, args.wording, codec=codec)
    told = "five captions each" if args.wording in CAPTIONS else "prompts and answers"
    print(f"{args.count} images with {told} are in {visible(str(folder))}")
    return 0
