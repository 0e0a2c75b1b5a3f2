"""Writes captions for images: to the terminal, as JSON lines, CSV, a web page or a PNG sheet.

  paligemma caption                               # a dozen drawn scenes
  paligemma caption a.jpg Images/ --checkpoint runs/mine --out captions.csv

Takes files, folders, patterns in quotes, and splits of TFDS data sets. The default of --checkpoint
is nano, the packaged model, which knows drawn scenes only. Images that cannot be read are skipped
and named; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

from paligemma_lib.cli.captioning_options import (
    add_captioning_options,
    captions_of,
    check_options,
    drawn_scenes,
)
from paligemma_lib.cli.console import WrongUse, load_tensorflow, printable
from paligemma_lib.cli.data_options import add_data_options, source_of
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.atomic import is_remote, path_of

if TYPE_CHECKING:
    from paligemma_lib.data.sources import Source

DRAWN = 12  # images to draw if none are given
FORMATS = (".jsonl", ".csv", ".png", ".html")

USAGE = "[IMAGE ...] [options]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("images", nargs="*", help="files, folders, or patterns in quotes")
    add_data_options(parser)
    parser.add_argument(
        "--out", type=path_of, action="append", default=[], metavar="FILE",
        help=f"ends in {', '.join(FORMATS)}; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--out-dir", type=path_of, metavar="FOLDER", help="for captions.* in all four formats"
    )
    add_captioning_options(parser)


def run(args: argparse.Namespace) -> int:
    """Captions images, prints and writes the captions; returns the exit code."""
    if args.images and args.data:
        raise WrongUse("give either images or --data")
    if wrong := [str(path) for path in args.out if path.suffix not in FORMATS]:
        raise WrongUse(f"--out {wrong[0]}: expected a name that ends in {', '.join(FORMATS)}")
    load_tensorflow()
    from paligemma_lib.runtime import processes

    with processes.joined(args.coordinator, args.processes, args.process):
        check_options(args)
        with _source_of(args) as source:
            return _caption(args, source)


def _source_of(args: argparse.Namespace) -> contextlib.AbstractContextManager[Source]:
    """Returns a context manager that gives the images of the command line, or drawn ones."""
    from paligemma_lib import data
    from paligemma_lib.data.sources import despite_damage

    if args.images:
        return contextlib.nullcontext(data.from_image_files(args.images))
    if (source := source_of(args)) is not None:
        return contextlib.nullcontext(despite_damage(source))
    return drawn_scenes(DRAWN)


def _caption(args: argparse.Namespace, source: Source) -> int:
    """Captions a source; the main process alone prints and writes files. Returns the exit code."""
    import jax

    from paligemma_lib.captioner import Captioned, Skipped
    from paligemma_lib.cli.caption_files import write_captions

    is_main = jax.process_index() == 0
    outputs = list(args.out)
    if args.out_dir:
        outputs += [args.out_dir / f"captions{suffix}" for suffix in FORMATS]
        if is_main:
            args.out_dir.mkdir(parents=True, exist_ok=True)
    local = [path for path in outputs if not is_remote(path)]
    if is_main and (missing := [path for path in local if not path.parent.is_dir()]):
        raise FileNotFoundError(f"cannot write {missing[0]}: its folder does not exist; create it")

    done: list[Captioned] = []
    skipped: list[Skipped] = []
    for result in captions_of(args, source):
        if isinstance(result, Captioned):
            done.append(result)
            line = f"{printable(result.image_id):<28}  {printable(result.caption.text)}"
        else:
            skipped.append(result)
            line = f"skipped {printable(f'{result.where}: {result.problem}')}"
        if is_main:
            print(line, flush=True, file=sys.stderr if isinstance(result, Skipped) else sys.stdout)
    code = 1 if skipped else 0
    if not is_main:
        return code
    for path in outputs:
        write_captions(path, done, skipped, source, vars(args))
        print(f"wrote {path}", file=sys.stderr)
    if skipped:
        print(f"{len(skipped)} of {len(source)} images were skipped", file=sys.stderr)
    return code
