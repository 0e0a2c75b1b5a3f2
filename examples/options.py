"""Options that the scripts share: how captions are written."""

import argparse

from paligemma_lib.checkpoint.arrays import DTYPES
from paligemma_lib.decode import Beam, BestOf, Greedy, Sample
from paligemma_lib.decode.loop import Sampler


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """Options for the model and for how captions are written."""
    parser.add_argument("--tokenizer", help="a .model file (default: the checkpoint's own)")
    parser.add_argument("--dtype", choices=DTYPES, help="of parameters and activations")
    parser.add_argument("--prompt", default="caption en", help="default: %(default)s")
    parser.add_argument("--sampler", choices=("greedy", "sample", "beam"), default="greedy")
    parser.add_argument("--beams", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--length-penalty", type=float, default=0.0, help="default: %(default)s")
    parser.add_argument("--temperature", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--samples", type=int, default=1, help="of which the likeliest is taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-new-tokens", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=8, help="default: %(default)s")


def sampler_of(args: argparse.Namespace) -> Sampler:
    """The sampler that `add_decoding_options` asked for. Raises ValueError for a wrong number."""
    if args.sampler == "beam":
        return Beam(args.beams, length_penalty=args.length_penalty)
    if args.sampler == "greedy":
        return Greedy()
    sample = Sample(args.temperature, args.top_k, args.top_p)
    return BestOf(args.samples, sample) if args.samples > 1 else sample


def printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
