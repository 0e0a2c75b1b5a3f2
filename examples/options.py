"""What predict.py and evaluate.py share: options, captions as these say, pictures to try."""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator

import paligemma_lib as pg
from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.checkpoint.arrays import DTYPES
from paligemma_lib.data.sources import Source
from paligemma_lib.decode import Beam, BestOf, Greedy, Sample
from paligemma_lib.decode.loop import Sampler
from paligemma_lib.runtime import processes
from paligemma_lib.sample_data import write_scenes

_UNSEEN = 1  # seed of scenes that the packaged model has not been trained on


def add_captioning_options(
    parser: argparse.ArgumentParser, checkpoint: argparse._ActionsContainer | None = None
) -> None:
    """Options for the model, for how captions are written, and for several processes.

    Args:
      parser: takes them.
      checkpoint: the group in it that --checkpoint belongs to, if to one.
    """
    (checkpoint or parser).add_argument(
        "--checkpoint",
        default="nano",
        help="an .npz file, a folder of safetensors, gs://, a Kaggle model, or nano, the small "
        "one that comes with the library (default: %(default)s)",
    )
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
    parser.add_argument(
        "--batch-size", type=int, default=8, help="over all processes (default: %(default)s)"
    )
    for name, (kind, description) in processes.OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, help=description)


def joined(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """See `processes.joined`."""
    return processes.joined(args.coordinator, args.processes, args.process)


def captions_of(args: argparse.Namespace, source: Source) -> Iterator[Captioned | Skipped]:
    """Captions of all pictures of a source, as `add_captioning_options` asked for.

    Raises:
      ValueError, FileNotFoundError: see `sampler_of` and `pg.captioner.load`.
    """
    sampler = sampler_of(args)
    captioner = pg.captioner.load(args.checkpoint, args.tokenizer, args.dtype)
    return captioner.caption(
        source,
        prompt=args.prompt,
        sampler=sampler,
        batch_size=args.batch_size,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
    )


def sampler_of(args: argparse.Namespace) -> Sampler:
    """The sampler that `add_captioning_options` asked for. Raises ValueError for a wrong number."""
    if args.sampler == "beam":
        return Beam(args.beams, length_penalty=args.length_penalty)
    if args.sampler == "greedy":
        return Greedy()
    sample = Sample(args.temperature, args.top_k, args.top_p)
    return BestOf(args.samples, sample) if args.samples > 1 else sample


@contextlib.contextmanager
def drawn_scenes(count: int) -> Iterator[Source]:
    """Drawn pictures with labels by which they were drawn, as long as the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        scenes = write_scenes(f"{folder}/scenes", count, seed=_UNSEEN, wording="labels")
        yield pg.data.from_folder(str(scenes))


def printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
