"""Converts a checkpoint to another format, and compares the bits and logits of both.

  paligemma convert nano nano-for-transformers
  paligemma convert runs/mine captioner.bf16.npz --dtype bfloat16

A target that ends in .npz gets big_vision's format. One without a suffix is a folder for
`PaliGemmaForConditionalGeneration.from_pretrained` of transformers.
"""

import argparse
import sys

from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.visible_text import visible

USAGE = "SOURCE TARGET [options]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("source", help="a checkpoint, as for `paligemma show`")
    parser.add_argument("target", help="a file that ends in .npz, or a new folder")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="cast to it (default: no cast)"
    )
    parser.add_argument(
        "--tokenizer", metavar="FILE", help="to put into a folder (default: that of SOURCE, if any)"
    )


def run(args: argparse.Namespace) -> int:
    """Converts a checkpoint and compares it with its source; returns the exit code."""
    from paligemma_lib import tokenizer
    from paligemma_lib.captioner.model_files import tokenizer_beside
    from paligemma_lib.checkpoint import read_config
    from paligemma_lib.checkpoint.conversion import compare_checkpoints, convert

    file = args.tokenizer
    if file is None and not args.target.endswith(".npz"):
        file = tokenizer_beside(args.source)
    given = None
    if file is not None:
        vocab_size = read_config(args.source).language.vocab_size
        given = tokenizer.load(file, vocab_size).serialized()
    convert(args.source, args.target, args.dtype, given)
    result = compare_checkpoints(args.source, args.target)
    source, target = visible(args.source), visible(args.target)
    print(f"{source} -> {target}\n{result}")
    if not result.is_finite:
        print(f"The logits are not finite: do not use {target}", file=sys.stderr)
        return 1
    if args.dtype is None and result.equal < result.parameters:
        print(f"Nothing was cast, but values differ: do not use {target}", file=sys.stderr)
        return 1
    return 0
