"""The option --data of `caption` and `evaluate`: data of any form, or a TFDS data set."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.parser import Parser

if TYPE_CHECKING:
    from paligemma_lib.data.sources import Source

_SPLIT = "test"


def add_data_options(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--data",
        action="append",
        metavar="PATH",
        help="images with captions in any form, as for `paligemma data`, or a TFDS data set",
    )
    parser.add_argument("--split", help=f"of --data (default: {_SPLIT}, if it has splits)")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where TFDS keeps its data sets")
    for former in ("--tfds", "--folder", "--jsonl"):
        parser.add_argument(former, action="append", dest="data", help=argparse.SUPPRESS)


def source_of(args: argparse.Namespace, images: str = "") -> Source | None:
    """Returns the source that the options name, or None if they name none.

    Args:
      args: options, after `add_data_options`.
      images: the folder of images, if it is not beside the table.

    Raises:
      WrongUse: more than one is named.
      ValueError, FileNotFoundError: see `open_source`.
    """
    from paligemma_lib.data.sources import from_tfds, splits_of
    from paligemma_lib.data.sources.data_path import split_path
    from paligemma_lib.data.sources.split_names import chosen_split

    if not args.data:
        return None
    if len(args.data) > 1:
        raise WrongUse(f"--data {' and --data '.join(args.data)}: give one of them")
    (args.data,) = args.data
    if is_tfds(args.data, args.data_dir):
        return from_tfds(args.data, args.split or _SPLIT, data_dir=args.data_dir)
    path, named = split_path(args.data)
    found = splits_of(path, split=args.split or named, images=images)
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
