"""Draws scenes with five captions each, in the layout of Kaggle's Flickr8k, to try things out.

  paligemma sample-data scenes
  paligemma sample-data scenes --count 200 --seed 7

Image k depends on the seed and k only, so a larger count only adds images.
"""

import argparse
from pathlib import Path

from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.parser import Parser
from paligemma_lib.sample_data import WORDINGS, write_scenes

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
        "--wording", choices=WORDINGS, default="sentences", help="style of the captions"
    )


def run(args: argparse.Namespace) -> int:
    """Draws the scenes; returns the exit code."""
    if args.count < 1:
        raise WrongUse(f"--count={args.count}: expected at least 1")
    folder = write_scenes(args.folder, args.count, args.seed, args.wording)
    print(f"{args.count} images with five captions each are in {folder}")
    return 0
