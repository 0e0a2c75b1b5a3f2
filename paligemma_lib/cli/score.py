"""Scores existing captions against reference captions by people.

  paligemma score --references captions.txt --predictions predictions.json
  paligemma score --references references.json --predictions captions.csv --json

Each file is a table with the header image,caption, JSON lines with `image` and `caption`, or JSON:
an object that maps images to captions, COCO annotations, or COCO results. References of images
without predictions are ignored.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from paligemma_lib.cli.console import printable
from paligemma_lib.cli.parser import Parser

USAGE = "--references FILE --predictions FILE [--json]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("--references", type=Path, required=True, metavar="FILE")
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the scores with confidence intervals; returns the exit code."""
    from paligemma_lib.evaluation import SCALE
    from paligemma_lib.metrics import read_captions, score, single

    captions = single(read_captions(args.predictions), args.predictions)
    references = read_captions(args.references)
    if missing := [image for image in captions if image not in references]:
        raise ValueError(
            f"{len(missing)} of {len(captions)} images of {args.predictions} have no captions in "
            f"{args.references}, the first {missing[0]!r}: expected the same names in both"
        )
    scores = score({image: references[image] for image in captions}, captions)
    intervals = scores.intervals()
    rows = {
        name: {"value": SCALE * value, "low": SCALE * low, "high": SCALE * high}
        for name, value in scores.corpus.items()
        for low, high in [intervals[name]]
    }
    if args.json:
        found = {"images": len(captions), "scale": SCALE, "scores": rows}
        print(json.dumps({**found, "warnings": scores.warnings}, indent=2))
        return 0
    print(f"{len(captions):,} images")
    for name, row in rows.items():
        print(f"{name:<8} {row['value']:6.1f}  {row['low']:.1f} to {row['high']:.1f}")
    for warning in scores.warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    return 0
