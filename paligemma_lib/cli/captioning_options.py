"""Options that `caption` and `evaluate` share, the captions they ask for, and drawn scenes."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.parser import Parser

if TYPE_CHECKING:
    from paligemma_lib.captioner import Captioned, Skipped
    from paligemma_lib.data.sources import Source
    from paligemma_lib.decode.programs import Strategy

_UNSEEN = 1  # seed of scenes on which nano was not trained


def add_captioning_options(parser: Parser) -> None:
    """Adds options for the model, the sampler, and several processes."""
    parser.add_argument(
        "--checkpoint",
        metavar="C",
        help=".npz, folder of safetensors, workdir of a run, gs://, Kaggle model (default: nano)",
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="(default: the checkpoint's own)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--prompt", help="(default: caption en)")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="(default: 64)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="(default: 8)")
    parser.add_argument("--ignore-exif", action="store_true", help="use images as stored")
    hidden = argparse.SUPPRESS
    parser.add_argument("--sampler", default="greedy", help=hidden)
    parser.add_argument("--beams", type=int, default=4, help=hidden)
    parser.add_argument("--length-penalty", type=float, default=0.0, help=hidden)
    parser.add_argument("--temperature", type=float, default=1.0, help=hidden)
    parser.add_argument("--top-k", type=int, help=hidden)
    parser.add_argument("--top-p", type=float, help=hidden)
    parser.add_argument("--samples", type=int, default=1, help=hidden)
    parser.add_argument("--seed", type=int, default=0, help=hidden)
    parser.tells(
        "how words are chosen: --sampler=greedy (default), --sampler=beam --beams=4 "
        "--length-penalty=0, --sampler=sample --temperature=1 --top-k=K --top-p=P --seed=0 "
        "--samples=1 (the likeliest is kept), --sampler=package.module:name"
    )
    parser.takes_processes()


def captions_of(args: argparse.Namespace, source: Source) -> Iterator[Captioned | Skipped]:
    """Captions all images of a source as the options of `add_captioning_options` say.

    Args:
      args: options, after `check_options`.
      source: the images.

    Raises:
      ValueError, FileNotFoundError: see `captioner.load`.
    """
    from paligemma_lib import captioner

    model = captioner.load(args.checkpoint or "nano", args.tokenizer, args.dtype)
    return model.stream(
        source,
        prompt=args.prompt,
        sampler=args.how,
        batch_size=args.batch_size,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
        apply_exif=not args.ignore_exif,
    )


def check_options(args: argparse.Namespace) -> None:
    """Fills in defaults and sets `args.how` to the sampler; raises WrongUse for invalid options."""
    take_defaults(args, "caption en", 64, 8)
    for name in ("batch_size", "max_new_tokens"):
        if getattr(args, name) < 1:
            raise WrongUse(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least 1")
    try:
        args.how = _sampler_of(args)
    except ValueError as error:
        raise WrongUse(str(error)) from error


def take_defaults(
    args: argparse.Namespace, prompt: str, max_new_tokens: int, batch_size: int
) -> None:
    """Sets the options that the command line did not set and that have no default yet."""
    values = {"prompt": prompt, "max_new_tokens": max_new_tokens, "batch_size": batch_size}
    for name, value in values.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def _sampler_of(args: argparse.Namespace) -> Strategy:
    from paligemma_lib.decode import Beam, BestOf, Greedy, Sample
    from paligemma_lib.run.assembly import sampler_of
    from paligemma_lib.run.dotted import is_dotted

    if args.sampler == "beam":
        return Beam(args.beams, length_penalty=args.length_penalty)
    if args.sampler == "greedy":
        return Greedy()
    if is_dotted(args.sampler):
        return sampler_of(args.sampler)
    if args.sampler != "sample":
        raise WrongUse(
            f"--sampler={args.sampler}: expected greedy, sample, beam, or package.module:name"
        )
    sample = Sample(args.temperature, args.top_k, args.top_p)
    return BestOf(args.samples, sample) if args.samples > 1 else sample


@contextlib.contextmanager
def drawn_scenes(count: int) -> Iterator[Source]:
    """Gives drawn images with labels; they are deleted when the block ends."""
    from paligemma_lib.data.sources import from_folder
    from paligemma_lib.sample_data import write_scenes

    with tempfile.TemporaryDirectory() as folder:
        scenes = write_scenes(f"{folder}/scenes", count, seed=_UNSEEN, wording="labels")
        yield from_folder(str(scenes))
