"""The options --data of `caption` and `evaluate`, --task of what scores, --masks of all.

--masks names the codec of masks, see `load_mask_codec`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, get_args

from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.parser import Parser
from paligemma_lib.metrics.tasks import Task

if TYPE_CHECKING:
    from paligemma_lib.data.sources import Source
    from paligemma_lib.regions import MaskCodec

ALLOW_OUTSIDE = "follow links that lead out of the data's folder"
_SPLIT = "test"
MASKS = "gs://big_vision/paligemma/vae-oid.npz"


def add_data_options(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--data",
        action="append",
        metavar="PATH",
        help="data in any form, as for `paligemma data`, or of TFDS",
    )
    parser.add_argument("--split", help=f"of --data (default: {_SPLIT}, if it has splits)")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where TFDS keeps its data sets")
    parser.add_argument("--allow-outside", action="store_true", help=ALLOW_OUTSIDE)
    for former in ("--tfds", "--folder", "--jsonl"):
        parser.add_argument(former, action="append", dest="data", help=argparse.SUPPRESS)


def add_task_option(parser: Parser) -> None:
    """Adds --task, which is None if it is not given, and --masks."""
    tasks = get_args(Task)
    told = f"scored as {', '.join(tasks)}"
    parser.add_argument("--task", choices=tasks, metavar="TASK", help=told)
    parser.add_argument("--masks", metavar="NPZ", help="vae-oid.npz, for --task segment")


def codec_of(args: argparse.Namespace) -> MaskCodec | None:
    """Returns the codec of masks that --masks names; None for tasks without masks.

    Raises:
      WrongUse: --masks without that task, or that task without --masks.
      FileNotFoundError, ValueError, ImportError: see `load_mask_codec`.
    """
    if args.task == "segment" and not args.masks:
        raise WrongUse(f"--task segment needs --masks: {MASKS}, or a copy of it")
    if args.task != "segment" and args.masks:
        raise WrongUse("--masks has no effect without --task segment: give it too, or leave it out")
    return codec_in(args.masks)


def codec_in(path: str | None) -> MaskCodec | None:
    """Returns the codec of masks in a file; None if none is named.

    Raises:
      FileNotFoundError, ValueError, ImportError: see `load_mask_codec`.
    """
    if not path:
        return None
    from paligemma_lib.checkpoint import load_mask_codec

    return load_mask_codec(path)


def add_drawn_masks_option(parser: Parser) -> None:
    """Adds --masks of a command that draws what texts name."""
    parser.add_argument(
        "--masks", metavar="NPZ", help="vae-oid.npz, to draw masks, and not their boxes alone"
    )


def check_data_options(args: argparse.Namespace, images: str = "") -> None:
    """Raises WrongUse for options of --data without --data."""
    given = {"--split": args.split, "--data-dir": args.data_dir, "--images": images}
    if not args.data and (idle := [name for name, value in given.items() if value]):
        raise WrongUse(f"{idle[0]} has no effect without --data: give it too, or leave it out")
    if args.data and len(args.data) > 1:
        raise WrongUse(f"--data {' and --data '.join(args.data)}: give one of them")


def source_of(args: argparse.Namespace, images: str = "") -> Source | None:
    """Returns the source that the options name, or None if they name none.

    Args:
      args: options, after `add_data_options`.
      images: the folder of images, if it is not beside the table.

    Raises:
      WrongUse: an option has no effect on these data.
      ValueError, FileNotFoundError: see `open_source`.
    """
    from paligemma_lib.data.sources import from_tfds, splits_of
    from paligemma_lib.data.sources.data_path import split_path
    from paligemma_lib.data.sources.split_names import chosen_split

    if not args.data:
        return None
    (args.data,) = args.data
    if is_tfds(args.data, args.data_dir):
        if images:
            raise WrongUse(f"--images has no effect: {args.data} is a TFDS data set, not a table")
        return from_tfds(args.data, args.split or _SPLIT, data_dir=args.data_dir)
    if args.data_dir:
        raise WrongUse(f"--data-dir has no effect: {args.data} is a path, not a TFDS data set")
    path, named = split_path(args.data)
    if named and args.split and args.split != named:
        raise WrongUse(f"--data {args.data} and --split {args.split} name two splits: give one")
    outside = args.allow_outside
    found = splits_of(path, split=args.split or named, images=images, allow_outside=outside)
    # Data with one split alone are all meant.
    only = next(iter(found)) if len(found) == 1 else _SPLIT
    return chosen_split(found, args.split or named or only, path)


def is_tfds(data: str, data_dir: str | None) -> bool:
    """Returns whether data on the command line are a TFDS data set, and not a path.

    The name of a prepared data set may also be that of a folder here, such as the one of its
    builder.
    """
    from paligemma_lib.data.sources import is_path
    from paligemma_lib.data.sources.tfds_source import is_prepared

    return not is_path(data) or is_prepared(data, data_dir)
