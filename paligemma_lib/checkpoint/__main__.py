"""Says what a checkpoint is, or what is wrong with it; converts one and proves the result.

    python -m paligemma_lib.checkpoint show CHECKPOINT [--config NAME]
    python -m paligemma_lib.checkpoint convert SOURCE TARGET [--dtype TYPE] [--tokenizer FILE]

A checkpoint is an .npz file, local or gs://, a folder of safetensors, or a Kaggle model. The exit
code is 0 when all is well, 1 when something is wrong with a checkpoint, 2 for a wrong command.
"""

import argparse
import math
import sys
from collections.abc import Sequence

from paligemma_lib.checkpoint.arrays import DTYPES
from paligemma_lib.checkpoint.configuration import MODELS, published_name
from paligemma_lib.checkpoint.conversion import certificate, convert
from paligemma_lib.checkpoint.stored import open_reader, read_config


def show(path: str, name: str | None = None) -> str:
    """Returns a description in two lines.

    Args:
      path: the checkpoint.
      name: the model that it should be, a key of MODELS; None: the one that it says it is.

    Raises:
      ValueError: it is damaged or does not hold the parameters of the model.
    """
    config = MODELS[name]() if name else read_config(path)
    with open_reader(path, config) as file:
        verified = file.verify()
        counts = {name: math.prod(shape) for name, shape in file.shapes.items()}
        size = sum(count * file.dtypes[name].itemsize for name, count in counts.items())
        types = " and ".join(sorted({str(dtype) for dtype in file.dtypes.values()}))
        side = math.isqrt(file.shapes["img/pos_embedding"][1]) * config.vision.patch_size
    return (
        f"{path}: {name or published_name(config) or 'a model of its own'} at {side} pixels, "
        f"{types}\n{sum(counts.values()):,} parameters in {size:,} bytes; {verified}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m paligemma_lib.checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("show", help="what a checkpoint is, or what is wrong with it")
    command.add_argument("checkpoint")
    command.add_argument("--config", choices=MODELS, help="the model that it should be")
    command = commands.add_parser("convert", help="write a checkpoint anew, and compare both")
    command.add_argument("source")
    command.add_argument("target", help="ends in .npz, or is a folder to be made")
    command.add_argument("--dtype", choices=DTYPES, help="cast to this type; else nothing is cast")
    command.add_argument("--tokenizer", metavar="FILE", help="the .model file to put into a folder")
    args = parser.parse_args(argv)
    try:
        if args.command == "show":
            print(show(args.checkpoint, args.config))
            return 0
        convert(args.source, args.target, args.dtype, args.tokenizer)
        result = certificate(args.source, args.target)
        print(f"{args.source} -> {args.target}\n{result}")
    except (ValueError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    if args.dtype is None and result.equal < result.parameters:
        print("Nothing was to be cast, so all should be equal: do not use it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
