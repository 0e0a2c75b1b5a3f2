"""Writes captions for images: to the terminal, as JSON lines, CSV, Parquet, a page or a PNG sheet.

  paligemma caption                               # a dozen drawn scenes
  paligemma caption a.jpg Images/ --checkpoint runs/mine --out captions.csv
  paligemma caption a.jpg --checkpoint BASE --adapter birds --adapter dogs

Takes files, folders, patterns in quotes, and splits of TFDS data sets. The default of --checkpoint
is nano, the packaged model, which knows drawn scenes only. Images that cannot be read are skipped
and named; the exit code is then 1. With --out, a killed command goes on when it is given again.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from typing import TYPE_CHECKING

from paligemma_lib.cli.captioning_options import (
    add_captioning_options,
    check_options,
    drawn_scenes,
    take_defaults,
    unfamiliar_told,
)
from paligemma_lib.cli.console import WrongUse, load_tensorflow
from paligemma_lib.cli.data_options import (
    add_data_options,
    add_drawn_masks_option,
    check_data_options,
    codec_in,
    source_of,
)
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.atomic import is_remote, path_of
from paligemma_lib.runtime.visible_text import visible

if TYPE_CHECKING:
    from paligemma_lib.data.sources import Source


DRAWN = 12  # images to draw if none are given
SHOWN = (".jsonl", ".csv", ".png", ".html")
FORMATS = (*SHOWN, ".parquet")
DRAWINGS = (".png", ".html")

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
        "--out-dir", type=path_of, metavar="FOLDER", help=f"for captions.*: {', '.join(SHOWN)}"
    )
    add_drawn_masks_option(parser)
    add_captioning_options(parser)


def run(args: argparse.Namespace) -> int:
    """Captions images, prints and writes the captions; returns the exit code."""
    if args.images and args.data:
        raise WrongUse("give either images or --data")
    check_data_options(args)
    if wrong := [str(path) for path in args.out if path.suffix not in FORMATS]:
        raise WrongUse(f"--out {wrong[0]}: expected a name that ends in {', '.join(FORMATS)}")
    if args.masks and not args.out_dir and not any(p.suffix in DRAWINGS for p in args.out):
        raise WrongUse("--masks has no effect without --out X.png or X.html: leave it out")
    load_tensorflow()
    check_options(args)
    take_defaults(args)
    from paligemma_lib.runtime import processes

    joined = processes.joined(args.coordinator, args.processes, args.process)
    with joined, _source_of(args) as source:
        return _caption(args, source)


def _source_of(args: argparse.Namespace) -> contextlib.AbstractContextManager[Source]:
    """Returns a context manager that gives the images of the command line, or drawn ones."""
    from paligemma_lib import data
    from paligemma_lib.data.sources import despite_damage

    if args.images:
        return contextlib.nullcontext(
            data.from_image_files(args.images, allow_outside=args.allow_outside)
        )
    if (source := source_of(args)) is not None:
        return contextlib.nullcontext(despite_damage(source))
    return drawn_scenes(DRAWN)


def _caption(args: argparse.Namespace, source: Source) -> int:
    """Captions a source; the main process alone prints and writes files. Returns the exit code."""
    import jax
    from tqdm import tqdm

    from paligemma_lib.captioner import Captioned, Skipped
    from paligemma_lib.cli.caption_files import write_captions
    from paligemma_lib.cli.caption_jobs import jobs_of
    from paligemma_lib.runtime import processes

    is_main, alone = jax.process_index() == 0, jax.process_count() == 1
    outputs = list(args.out)
    if args.out_dir:
        outputs += [args.out_dir / f"captions{suffix}" for suffix in SHOWN]
        with processes.main_process_first():
            args.out_dir.mkdir(parents=True, exist_ok=True)
    local = [path for path in outputs if not is_remote(path)]
    if missing := [path for path in local if not path.parent.is_dir()]:
        raise FileNotFoundError(f"cannot write {missing[0]}: its folder does not exist; create it")

    codec = codec_in(args.masks)
    several = len(args.adapter or ()) > 1
    width = max(len(visible(name)) for name in args.adapter) if several else 0
    at_once = alone and not several  # other results come in another order

    def show(result: Captioned | Skipped) -> None:
        if isinstance(result, Captioned):
            by = f"{visible(result.adapter or ''):<{width}}  " if width else ""
            line = f"{visible(result.image_id):<28}  {by}{visible(result.caption.text)}"
        else:
            line = f"skipped {visible(f'{result.where}: {result.problem}')}"
        # tqdm writes it above the bar, if there is one.
        tqdm.write(line, file=sys.stderr if isinstance(result, Skipped) else sys.stdout)

    with contextlib.ExitStack() as jobs:
        found = []
        for job in jobs_of(args, source, outputs[0] if outputs else None):
            jobs.enter_context(job)
            for result in job.run():
                if at_once:
                    show(result)
            found.append(job.results())
        # With several adapters, the captions of an image lie one after the other; an image that
        # none of them could read is told once.
        images = zip(*found, strict=True)
        results = list(itertools.chain.from_iterable(map(dict.fromkeys, images)))
        done = [each for each in results if isinstance(each, Captioned)]
        skipped = [each for each in results if isinstance(each, Skipped)]
        if is_main and not results:
            raise ValueError("there is no image to caption: is the split empty?")
        if is_main and not at_once:
            for result in results:
                show(result)
        if is_main:
            for path in outputs:
                write_captions(path, done, skipped, source, vars(args), codec)
                print(f"wrote {visible(str(path))}", file=sys.stderr)
    code = 1 if any(processes.gather(b"skipped" if skipped else b"")) else 0
    if not is_main:
        return code
    from paligemma_lib.evaluation import cut_off_told

    for warning in [*unfamiliar_told(args), *cut_off_told(done)]:
        print(f"warning: {visible(warning)}", file=sys.stderr)
    if skipped:
        print(f"{len(skipped)} of {len(source)} images were skipped", file=sys.stderr)
    return code
