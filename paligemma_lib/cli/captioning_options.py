"""Options that `caption` and `evaluate` share, the captions they ask for, and drawn scenes."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.named_paths import paths_by_name
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.bounds import whole

if TYPE_CHECKING:
    import jax

    from paligemma_lib.captioner import Captioned, Captioner, Skipped
    from paligemma_lib.data.sources import Source
    from paligemma_lib.decode import LogitsProcessor
    from paligemma_lib.decode.programs import Strategy

T = TypeVar("T")

_UNSEEN = 1  # seed of scenes on which nano was not trained
MAX_TOKENS = 1 << 16  # of a caption, as `decode` has it

_OF_BEAM = ("beams", "length_penalty")
_OF_SAMPLE = ("temperature", "top_k", "top_p", "samples")
_FLOATS = ("length_penalty", "temperature", "top_p", "repetition_penalty")


def add_captioning_options(parser: Parser) -> None:
    """Adds options for the model, the sampler, and several processes."""
    parser.add_argument(
        "--checkpoint",
        metavar="C",
        help="file, folder, workdir, OWNER/NAME (default: nano)",
    )
    parser.add_argument(
        "--adapter",
        action="append",
        metavar="[NAME=]A",
        help="adapter for it; repeatable, each of them captions",
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="(default: the checkpoint's own)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    parser.add_argument(
        "--weights", choices=("int8", "nf4"), help="matrices in 8 or 4 bits, to need less memory"
    )
    parser.add_argument("--image-size", type=int, metavar="S", help="pixels (default: its own)")
    parser.add_argument("--prompt", help="(default: caption en)")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="(default: 64)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="(default: 8)")
    parser.add_argument("--ignore-exif", action="store_true", help="use images as stored")
    hidden = argparse.SUPPRESS
    parser.add_argument("--sampler", help=hidden)
    # An option without a value has no default here, so that one without an effect is noticed.
    for name in (*_OF_BEAM, *_OF_SAMPLE, "repetition_penalty", "no_repeat_ngram", "seed"):
        kind = float if name in _FLOATS else int
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=hidden)
    parser.tells(
        "how words are chosen: --sampler=greedy (default), --sampler=beam --beams=4 "
        "--length-penalty=0, --sampler=sample --temperature=1 --top-k=K --top-p=P --seed=0 "
        "--samples=1 (the likeliest is kept), --sampler=package.module:name; each with "
        "--no-repeat-ngram=N, all but beam with --repetition-penalty=P"
    )
    parser.takes_processes()


def captions_of(args: argparse.Namespace, source: Source) -> Iterator[Captioned | Skipped]:
    """Captions all images of a source as the options of `add_captioning_options` say.

    Args:
      args: options, after `check_options`; they name one adapter at most.
      source: the images.

    Raises:
      ValueError, FileNotFoundError: see `captioner.load`.
      WrongUse: the prompt cannot be encoded.
    """
    model = model_of(args)
    prompt_told(model, args.prompt)
    for name in args.adapter or ():
        model = model.with_adapter(name)
    return model.stream(
        source,
        prompt=args.prompt,
        sampler=args.how,
        batch_size=args.batch_size,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed or 0,
        apply_exif=not args.ignore_exif,
    )


def model_of(args: argparse.Namespace, devices: Sequence[jax.Device] | None = None) -> Captioner:
    """Loads the model, with its adapters, that the options of `add_captioning_options` name."""
    from paligemma_lib import captioner

    return captioner.load(
        args.checkpoint or "nano",
        args.tokenizer,
        args.dtype,
        args.adapter or {},
        args.weights,
        image_size=args.image_size,
        devices=devices,
    )


def unfamiliar_told(args: argparse.Namespace) -> list[str]:
    """Returns a warning if nano is asked about images that are given, and not drawn; else none."""
    from paligemma_lib import hub

    given = bool(args.images or args.data)
    return [hub.NANO_KNOWS] if given and (args.checkpoint or "nano") == "nano" else []


def prompt_told(model: Captioner, prompt: str) -> list[int]:
    """Returns the tokens of a prompt; raises WrongUse if it cannot be encoded."""
    return _told(model.tokenizer.encode_prefix, prompt)


def check_options(args: argparse.Namespace) -> None:
    """Sets `args.how` to the sampler and `args.adapter` to folders by name.

    Raises:
      WrongUse: an option is invalid, or has no effect.
    """
    for name, most in (("batch_size", None), ("image_size", None), ("max_new_tokens", MAX_TOKENS)):
        if (value := getattr(args, name)) is not None:
            _told(whole, _flag(name), value, 1, most)
    if args.seed is not None:
        _told(whole, "--seed", args.seed, 0, 2**63 - 1)
    args.how = _told(_sampler_of, args)
    args.adapter = _told(paths_by_name, args.adapter or [], "--adapter") or None
    if args.seed is not None and not args.how.random:
        raise WrongUse(
            f"--seed={args.seed} has no effect: nothing is drawn at random; choose "
            "--sampler=sample with a temperature above 0, or leave it out"
        )


def captioning_options_of(args: argparse.Namespace) -> list[str]:
    """Returns the options of `add_captioning_options` that the command line gives."""
    names = ["checkpoint", "adapter", "tokenizer", "dtype", "weights", "prompt", "max_new_tokens"]
    names += ["image_size", "batch_size", "ignore_exif", "sampler", *_OF_BEAM, *_OF_SAMPLE]
    names += ["repetition_penalty", "no_repeat_ngram", "seed"]
    return [_flag(name) for name in names if getattr(args, name) not in (None, False)]


def take_defaults(
    args: argparse.Namespace,
    prompt: str = "caption en",
    max_new_tokens: int = 64,
    batch_size: int = 8,
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

    name = args.sampler or "greedy"
    if name not in ("greedy", "sample", "beam") and not is_dotted(name):
        raise WrongUse(f"--sampler={name}: expected greedy, sample, beam, or package.module:name")
    for of, options in (("beam", _OF_BEAM), ("sample", _OF_SAMPLE)):
        given = [_flag(each) for each in options if getattr(args, each) is not None]
        if given and name != of:
            raise WrongUse(f"{given[0]} has no effect with --sampler={name}: it is of {of}")
    if name == "beam":
        if args.repetition_penalty is not None:
            raise WrongUse("--repetition-penalty has no effect with --sampler=beam: leave it out")
        return Beam(
            4 if args.beams is None else args.beams,
            length_penalty=args.length_penalty or 0.0,
            no_repeat_ngram=args.no_repeat_ngram,
        )
    if name == "greedy":
        return _processed(args, Greedy())
    if is_dotted(name):
        return _processed(args, sampler_of(name))
    temperature = 1.0 if args.temperature is None else args.temperature
    given = [_flag(each) for each in ("top_k", "top_p") if getattr(args, each) is not None]
    if given and temperature == 0:
        raise WrongUse(f"{given[0]} has no effect with --temperature=0: leave it out")
    sample = _processed(args, Sample(temperature, args.top_k, args.top_p))
    return sample if args.samples in (None, 1) else BestOf(args.samples, sample)


def _processed(args: argparse.Namespace, sampler: Strategy) -> Any:
    """Returns the sampler with the processors of logits that the command line asks for."""
    from paligemma_lib.decode import Beam, NoRepeatNgram, Processed, RepetitionPenalty

    processors: list[LogitsProcessor] = []
    if args.repetition_penalty is not None:
        processors.append(RepetitionPenalty(args.repetition_penalty))
    if args.no_repeat_ngram is not None:
        processors.append(NoRepeatNgram(args.no_repeat_ngram))
    if not processors:
        return sampler
    if isinstance(sampler, Beam):
        raise WrongUse(f"{sampler} takes no processors of logits: set its field no_repeat_ngram")
    return Processed(sampler, tuple(processors))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _told(check: Callable[..., T], *values: Any) -> T:
    """Calls a function; what it refuses was wrong on the command line."""
    try:
        return check(*values)
    except ValueError as error:
        raise WrongUse(str(error)) from error


@contextlib.contextmanager
def drawn_scenes(count: int) -> Iterator[Source]:
    """Gives drawn images with labels; they are deleted when the block ends."""
    from paligemma_lib.data.sources import from_folder
    from paligemma_lib.sample_data import write_scenes

    with tempfile.TemporaryDirectory() as folder:
        scenes = write_scenes(f"{folder}/scenes", count, seed=_UNSEEN, wording="labels")
        yield from_folder(str(scenes))
