"""Says what an `.npz` file is, or what is wrong with it.

    python -m paligemma_lib.checkpoint FILE [--config NAME]

Names, shapes, types and checksums are all verified.
"""

import argparse
import math
import sys
from collections.abc import Sequence

from paligemma_lib.checkpoint.matching import MODELS, check_params, closest_model
from paligemma_lib.checkpoint.npz import NpzReader


def describe(path: str, name: str | None = None) -> str:
    """Returns a description in two lines.

    Args:
      path: the file.
      name: the model that it should be, a key of MODELS; None: the one it is closest to.

    Raises:
      ValueError: the file is damaged or does not hold the parameters of the model.
    """
    with NpzReader(path) as file:
        closest, config, _ = closest_model(file.shapes)
        source = path if name else f"{path} resembles {closest}, but it"
        check_params(file.shapes, file.dtypes, MODELS[name]() if name else config, source=source)
        file.verify()
    counts = {name: math.prod(shape) for name, shape in file.shapes.items()}
    size = sum(count * file.dtypes[name].itemsize for name, count in counts.items())
    types = " and ".join(sorted({str(dtype) for dtype in file.dtypes.values()}))
    return (
        f"{path}: {closest} at {config.vision.image_size} pixels, {types}"
        f"{', compressed' if file.is_compressed else ''}\n"
        f"{sum(counts.values()):,} parameters in {len(counts)} arrays, {size:,} bytes; checksums "
        "are right"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m paligemma_lib.checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="an .npz file, local or gs://")
    parser.add_argument("--config", choices=MODELS, help="the model that it should be")
    args = parser.parse_args(argv)
    try:
        print(describe(args.file, args.config))
    except (ValueError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
