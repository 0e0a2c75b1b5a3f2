"""Describes data, and says what is wrong with them.

  paligemma data captions.json
  paligemma data photos --out sheet.png --json

The data are a file, a folder or a pattern of any known form, a data set of the Hugging Face Hub as
OWNER/NAME, or the name of a TFDS data set. Counts are per split; lengths are those of captions with
their prompt, in tokens. The exit code is 1 if images cannot be read; they are named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from paligemma_lib.cli.console import WrongUse, load_tensorflow
from paligemma_lib.cli.data_options import (
    ALLOW_OUTSIDE,
    add_drawn_masks_option,
    codec_in,
    is_tfds,
)
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.strict_json import dumps
from paligemma_lib.runtime.visible_text import visible, visible_lines

if TYPE_CHECKING:
    from paligemma_lib.regions import MaskCodec

USAGE = "PATH [options]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("path", help="data, as for --config.data.train")
    parser.add_argument(
        "--images", default="", metavar="FOLDER", help="folder of images, if elsewhere"
    )
    for name in ("image", "caption"):
        column = f"name of the {name}s' column, key or feature"
        parser.add_argument(f"--{name}-column", default="", metavar="NAME", help=column)
    parser.add_argument("--allow-outside", action="store_true", help=ALLOW_OUTSIDE)
    parser.add_argument("--prompt", default="caption en", help="(default: caption en)")
    parser.add_argument("--tokenizer", metavar="FILE", help="(default: that of nano)")
    parser.add_argument("--show", type=int, metavar="N", help="print record N as the model gets it")
    parser.add_argument("--out", type=Path, metavar="PNG", help="write a sheet of nine images")
    add_drawn_masks_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints what there is; returns the exit code."""
    if args.show is not None:
        if idle := [f"--{name}" for name in ("out", "json") if getattr(args, name)]:
            raise WrongUse(f"{idle[0]} has no effect with --show, which prints one record as JSON")
        if args.show < 0:
            raise WrongUse(f"--show={args.show}: expected a number from 0")
    if args.out and args.out.suffix.lower() != ".png":
        raise WrongUse(f"--out {args.out}: expected a name that ends in .png")
    if args.masks and not args.out:
        raise WrongUse("--masks has no effect without --out X.png: leave it out")
    codec = codec_in(args.masks)
    load_tensorflow()
    from paligemma_lib import captioner, tokenizer
    from paligemma_lib.data.sources import Columns, despite_damage, open_source, splits_of
    from paligemma_lib.data.sources.data_path import split_path
    from paligemma_lib.data.sources.tfds_source import splits_of_tfds
    from paligemma_lib.data.survey import record_shown, survey

    named = Columns(args.image_column, args.caption_column)
    how = {"images": args.images, "columns": named, "allow_outside": args.allow_outside}
    if split := split_path(args.path)[1]:
        found = {split: open_source(args.path, **how)}
    elif is_tfds(args.path, None):
        if args.images:
            raise WrongUse(f"--images has no effect: {args.path} is a TFDS data set, not a table")
        found = splits_of_tfds(args.path, columns=named)
    else:
        found = splits_of(args.path, **how)
    # What is damaged is listed, and keeps nobody from the rest.
    found = {name: despite_damage(source) for name, source in found.items()}
    chosen = tokenizer.load(args.tokenizer or captioner.tokenizer_of("nano"))
    if args.show is not None:
        shown = record_shown(found, chosen, args.prompt, args.show)
        print(dumps(shown, indent=2))
        return 0
    result = survey(found, chosen, args.prompt)
    if args.out and any(map(len, found.values())):
        write_sheet(args.out, found, codec)
    print(dumps(result.to_dict(), indent=2) if args.json else visible_lines(str(result)))
    return 1 if result.unreadable else 0


def write_sheet(path: Path, splits: dict, codec: MaskCodec | None) -> None:
    """Writes nine images with their first captions, evenly spread over a split.

    Args:
      path: ends in .png.
      splits: sources by name.
      codec: turns the codes of masks into pixels; None: only boxes are drawn.
    """
    import contextlib
    import io

    from paligemma_lib.report import contact_sheet
    from paligemma_lib.runtime.atomic import atomic_write

    source = next(source for source in splits.values() if len(source))
    records = []
    for number in sorted({k * (len(source) - 1) // 8 for k in range(9)}):
        with contextlib.suppress(ValueError, OSError):  # the survey names what cannot be read
            records += source.read([number])
    captioned = [(r.image, "; ".join(r.captions[:1])) for r in records]
    sheet = contact_sheet(captioned, columns=3, codec=codec)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    with atomic_write(path) as out:
        out.write(file.getvalue())
    print(f"wrote {visible(str(path))}", file=sys.stderr)
