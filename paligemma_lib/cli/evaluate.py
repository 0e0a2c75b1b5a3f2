"""Captions images and scores the captions: intervals, best and worst, a report.

  paligemma evaluate --out-dir results            # a hundred drawn scenes, nano
  paligemma evaluate --config=flickr8k --sampler=beam --out-dir results
  paligemma evaluate --compare a.json b.json --data flickr8k --out-dir a-b

Writes `predictions.json`, as COCO's results, `scores.json` and `report.html`. Images that cannot be
read are skipped and named; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from paligemma_lib.cli.captioning_options import (
    add_captioning_options,
    captioning_options_of,
    captions_of,
    check_options,
    drawn_scenes,
    take_defaults,
    unfamiliar_told,
)
from paligemma_lib.cli.console import WrongUse, load_tensorflow
from paligemma_lib.cli.data_options import (
    add_data_options,
    add_task_option,
    check_data_options,
    codec_of,
    source_of,
)
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.runtime.visible_text import visible

if TYPE_CHECKING:
    from pathlib import Path

    from paligemma_lib.captioner import Captioned, Skipped
    from paligemma_lib.data.sources import Source
    from paligemma_lib.metrics import ImageId
    from paligemma_lib.report import Report

DRAWN = 100  # images to draw if no data are given

USAGE = "--out-dir FOLDER [options]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    add_data_options(parser)
    parser.add_argument(
        "--images", default="", metavar="FOLDER", help="folder of images, if elsewhere"
    )
    parser.takes_config(None, "run to evaluate")
    parser.add_argument("--out-dir", type=path_of, required=True, metavar="FOLDER")
    parser.add_argument(
        "--compare",
        nargs=2,
        type=path_of,
        metavar="JSON",
        help="is the second of two files of predictions better?",
    )
    add_task_option(parser)
    parser.add_argument("--java-scores", action="store_true", help="METEOR and SPICE too")
    add_captioning_options(parser)


def run(args: argparse.Namespace) -> int:
    """Captions, scores and writes; returns the exit code. Only the main process prints."""
    if args.data and args.config:
        raise WrongUse("--data and --config both name images: give one of them")
    if args.compare and (given := captioning_options_of(args)):
        raise WrongUse(f"--compare takes no {given[0]}: it compares existing captions")
    check_data_options(args, args.images)
    load_tensorflow()
    check_options(args)
    if len(args.adapter or ()) > 1:
        raise WrongUse("--adapter: give one to evaluate, and then --compare the predictions")
    import jax

    from paligemma_lib.cli.evaluation_reports import comparison, evaluation
    from paligemma_lib.data.sources import despite_damage
    from paligemma_lib.runtime import processes

    joined = processes.joined(args.coordinator, args.processes, args.process)
    with joined, _source_of(args) as found:
        # A damaged record keeps nobody from the others: it is skipped. A comparison wants all.
        source = found if args.compare else despite_damage(found)
        take_defaults(args)
        args.task = args.task or (args.config.task if args.config else "caption")
        if args.config and args.task == args.config.task:
            args.masks = args.masks or args.config.masks or None
        codec = codec_of(args)
        if jax.process_index() == 0:
            args.out_dir.mkdir(parents=True, exist_ok=True)
        asked = {name: value for name, value in vars(args).items() if value is not None}
        if args.compare:
            if jax.process_index() == 0:
                _announce(args.out_dir, comparison(source, args.compare, asked, codec))
            return 0
        done, skipped = _captioned(args, source)
        if jax.process_index() == 0:
            _announce(args.out_dir, evaluation(source, done, skipped, asked, codec))
            for warning in unfamiliar_told(args):
                print(f"warning: {visible(warning)}", file=sys.stderr)
        return 1 if skipped else 0


@contextlib.contextmanager
def _source_of(args: argparse.Namespace) -> Iterator[Source]:
    """Gives the images and references of the command line, or drawn images if it names none."""
    if (source := source_of(args, args.images)) is not None:
        yield source
    elif args.config:
        from paligemma_lib.run import Setup

        config = args.config
        args.checkpoint = args.checkpoint or config.workdir
        take_defaults(args, config.prompt, config.max_new_tokens, config.decode_batch_size)
        args.ignore_exif |= not config.data.apply_exif
        yield Setup(config).data["test"]
    else:
        with drawn_scenes(DRAWN) as source:
            yield source


def _captioned(
    args: argparse.Namespace, source: Source
) -> tuple[dict[ImageId, Captioned], list[Skipped]]:
    """Captions a source; returns the captions by image, and the images that were skipped."""
    import jax

    from paligemma_lib.captioner import Skipped

    done: dict[ImageId, Captioned] = {}
    skipped: list[Skipped] = []
    for result in captions_of(args, source):
        if isinstance(result, Skipped):
            skipped.append(result)
        elif result.image_id in done:
            raise ValueError(f"{result.image_id!r} is in the data twice: merge its captions")
        else:
            done[result.image_id] = result
        if (count := len(done) + len(skipped)) % 100 == 0 and jax.process_index() == 0:
            print(f"{count:,} of {len(source):,} captions", file=sys.stderr)
    if not done:
        reason = f": {skipped[0].problem}" if skipped else ""
        raise ValueError(f"none of {len(source)} images could be captioned{reason}")
    return done, skipped


def _announce(folder: Path, report: Report) -> None:
    """Writes the report and prints its summary, scores and warnings."""
    from paligemma_lib.evaluation import write_outcome

    path = write_outcome(folder, report)
    print("\n".join(map(visible, report.summary)))
    width = max(len(row.name) for row in report.scores)
    for row in report.scores:
        print(f"{row.name:<{width}} {row.value:6.1f}  {row.low:.1f} to {row.high:.1f}")
    for warning in report.warnings:
        print(f"warning: {visible(warning)}", file=sys.stderr)
    print(f"wrote {visible(str(path))}")
