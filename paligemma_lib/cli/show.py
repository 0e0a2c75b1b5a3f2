"""Describes a checkpoint, or says what is wrong with it.

  paligemma show nano
  paligemma show paligemma-3b-pt-224.f16.npz

A checkpoint is an .npz file (local or gs://), a folder of safetensors, an adapter of PEFT, the
workdir of a run, a model of the Hugging Face Hub (OWNER/NAME) or of Kaggle, or nano.
"""

import argparse
import math

from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.visible_text import visible, visible_lines

USAGE = "CHECKPOINT [--model NAME]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    from paligemma_lib.checkpoint.configuration import MODELS

    parser.add_argument("checkpoint")
    parser.add_argument(
        "--model", choices=MODELS, metavar="NAME", help=f"expected model: {', '.join(MODELS)}"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the description; returns the exit code."""
    print(visible_lines(described(args.checkpoint, args.model)))
    return 0


def described(path: str, name: str | None = None) -> str:
    """Returns a description of a checkpoint in two lines, or of an adapter in a few.

    Args:
      path: the checkpoint.
      name: the model that it should hold, a key of MODELS; None: the model that its config.json or
        the shapes of its arrays indicate.

    Raises:
      ValueError: the checkpoint is damaged, or does not hold the parameters of the model.
    """
    from paligemma_lib.checkpoint.adapters import find_adapter
    from paligemma_lib.checkpoint.adapters.adapter_overview import adapter_overview
    from paligemma_lib.checkpoint.adapters.merge_record import merged_adapters
    from paligemma_lib.checkpoint.configuration import MODELS, published_name
    from paligemma_lib.checkpoint.stored import metadata_of, open_reader, read_config

    if find_adapter(path):
        return adapter_overview(path)
    config = MODELS[name]() if name else read_config(path)
    with open_reader(path, config) as file:
        verified = file.verify()
        counts = {name: math.prod(shape) for name, shape in file.shapes.items()}
        size = sum(count * file.dtypes[name].itemsize for name, count in counts.items())
        types = " and ".join(sorted({str(dtype) for dtype in file.dtypes.values()}))
        side = math.isqrt(file.shapes["img/pos_embedding"][1]) * config.vision.patch_size
    record = merged_adapters(metadata_of(path))
    merged = [f"{each.fingerprint[:16]} x {each.weight:g}" for each in record]
    held = f"\nmerged into it: adapters {', '.join(merged)}" if merged else ""
    return (
        f"{visible(path)}: {name or published_name(config) or 'a custom model'} at {side} pixels, "
        f"{types}\n{sum(counts.values()):,} parameters in {size:,} bytes; {verified}{held}"
    )
