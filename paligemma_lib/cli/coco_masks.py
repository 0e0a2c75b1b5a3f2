"""Writes the masks of COCO's instances as prompts with their answers, to train `segment` on.

  paligemma coco-masks instances_train2017.json train.jsonl --masks vae-oid.npz
  paligemma coco-masks _annotations.coco.json masks.jsonl --masks vae-oid.npz

An image gets the prompt `segment CATEGORY` for each category in it, and the boxes and masks of all
its things as the text. Masks are polygons, or lengths of runs (RLE), also compressed. Crowds are
left out. Annotations that cannot be used are left out and named; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.data_options import MASKS
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.visible_text import visible

USAGE = "INSTANCES OUT --masks NPZ"
_SHOWN = 5  # problems that are told


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("instances", help="COCO's instances, a .json file, also on gs://")
    parser.add_argument("out", type=Path, help="the prompts, a .jsonl file")
    parser.add_argument("--masks", metavar="NPZ", help=f"vae-oid.npz: {MASKS}, or a copy of it")


def run(args: argparse.Namespace) -> int:
    """Writes the prompts; returns the exit code."""
    if not args.masks:
        raise WrongUse(f"the codes of masks need --masks: {MASKS}, or a copy of it")
    if args.out.suffix != ".jsonl":
        raise WrongUse(f"{args.out}: expected a name that ends in .jsonl")
    if not args.out.parent.is_dir():
        raise FileNotFoundError(f"cannot write {args.out}: its folder does not exist; create it")
    from paligemma_lib.checkpoint import load_mask_codec
    from paligemma_lib.data.files import read_whole
    from paligemma_lib.data.sources.coco_segments import segment_rows
    from paligemma_lib.data.sources.table_forms import MAX_TABLE_BYTES
    from paligemma_lib.runtime.atomic import atomic_write
    from paligemma_lib.runtime.strict_json import dumps

    codec = load_mask_codec(args.masks)
    data = read_whole(args.instances, MAX_TABLE_BYTES)
    try:
        rows = list(segment_rows(data, codec))
    except ValueError as error:
        raise ValueError(f"{args.instances}, {error}") from error
    problems = [row.problem for row in rows if row.problem]
    lines = [
        dumps({"image": row.image, "prefix": row.prefix, "suffix": row.caption})
        for row in rows
        if not row.problem
    ]
    for problem in problems[:_SHOWN]:
        print(f"skipped {visible(problem)}", file=sys.stderr)
    if len(problems) > _SHOWN:
        print(f"{len(problems):,} were skipped, {_SHOWN} are named", file=sys.stderr)
    if not lines:
        raise ValueError(f"{args.instances} has no mask that can be used: nothing is written")
    with atomic_write(args.out) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    print(f"{len(lines):,} prompts are in {visible(str(args.out))}")
    return 1 if problems else 0
