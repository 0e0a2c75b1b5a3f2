"""Merges adapters into their base model, and certifies that the file says the same.

  paligemma merge nano birds --out birds.npz
  paligemma merge BASE birds=0.7 dogs=0.3 --out both --dtype bfloat16

ADAPTER is a folder of PEFT (LoRA, rsLoRA, DoRA) or the workdir of a run that trained one. A number
after = is the weight of its change, 1 by default. X.npz gets big_vision's format; a name without a
suffix, a folder for transformers. The file is read back: logits and greedy captions of base and
adapters are compared with its own. Above the bound it is removed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from paligemma_lib.cli.console import WrongUse, load_tensorflow
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.visible_text import visible

if TYPE_CHECKING:
    from paligemma_lib.captioner.certificate import Certificate
    from paligemma_lib.checkpoint.adapters.merging import Combination

USAGE = "BASE ADAPTER[=WEIGHT] ... --out X [options]"

_DRAWN = 8  # scenes to compare captions on, if no images are given
_PLAIN = ("", "float32", "bfloat16", "float16")  # storage that a merged file can have


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("base", help="a checkpoint, as for `paligemma show`")
    parser.add_argument("adapters", nargs="+", metavar="ADAPTER[=WEIGHT]", help="folders")
    parser.add_argument("--out", required=True, metavar="X", help="X.npz, or a new folder")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="(default: that of the base)"
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="(default: the base's own)")
    parser.add_argument(
        "--image-size", type=int, metavar="S", help="pixels (default: those of the adapters)"
    )
    parser.add_argument(
        "--images", nargs="+", default=[], metavar="IMAGE",
        help=f"files or folders to compare on (default: {_DRAWN} drawn scenes)",
    )  # fmt: skip
    parser.add_argument("--prompt", default="caption en", help="(default: caption en)")


def run(args: argparse.Namespace) -> int:
    """Merges, reads the file back and compares; returns the exit code."""
    load_tensorflow()
    from paligemma_lib import tokenizer
    from paligemma_lib.captioner import tokenizer_of
    from paligemma_lib.checkpoint import target_kind
    from paligemma_lib.checkpoint.adapters.merging import combine, merge

    given = [_adapter(each) for each in args.adapters]
    target = _new(args.out)
    is_npz = target_kind(args.out) == "npz"
    combination = combine(args.base, given, image_size=args.image_size)
    parts = tokenizer.load(
        args.tokenizer or tokenizer_of(args.base), combination.config.language.vocab_size
    )
    model = parts.serialized()
    if is_npz:
        _check_beside(target.with_name("tokenizer.model"), model)
    for folder, _ in given:
        _tell_origin(folder, args.base)
    # What is not certified has a hidden name. It lies beside its place, so that a rename suffices.
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", suffix=".partial", dir=target.parent
    ) as hidden:
        made = Path(hidden, target.name)
        merge(args.base, combination, made, dtype=args.dtype, tokenizer=None if is_npz else model)
        beside = Path(hidden, "tokenizer.model")
        beside.write_bytes(model)
        certificate = _certified(args, combination, made, beside)
        print(certificate)
        if not certificate.holds:
            print(
                f"{visible(args.out)} is not written: it would say something else than the base "
                "with its adapters. Try --dtype float32, and a folder, which keeps all settings",
                file=sys.stderr,
            )
            return 1
        made.rename(target)
        if is_npz:
            os.replace(beside, target.with_name("tokenizer.model"))
    print(f"wrote {visible(args.out)}", file=sys.stderr)
    return 0


def _certified(
    args: argparse.Namespace, combination: Combination, made: Path, tokenizer: Path
) -> Certificate:
    from paligemma_lib.captioner.certificate import certify
    from paligemma_lib.cli.captioning_options import drawn_scenes
    from paligemma_lib.data import from_image_files

    given = contextlib.nullcontext(from_image_files(args.images)) if args.images else None
    with given or drawn_scenes(_DRAWN) as source:
        return certify(
            args.base, combination, made, source, tokenizer=tokenizer, prompt=args.prompt
        )


def _adapter(text: str) -> tuple[str, float]:
    """Returns a folder and a weight, of FOLDER or FOLDER=WEIGHT."""
    folder, sign, weight = text.rpartition("=")
    if not sign or Path(text).expanduser().exists():
        return text, 1.0
    try:
        return folder, float(weight)
    except ValueError as error:
        raise WrongUse(f"{text}: expected ADAPTER or ADAPTER=WEIGHT, such as birds=0.5") from error


def _new(name: str) -> Path:
    """Returns the path of a target that does not exist yet."""
    if "://" in name:
        raise WrongUse(f"{name} is not a local path: merge to a local path, then copy it")
    target = Path(os.path.abspath(os.path.expanduser(name)))
    if target.exists():
        raise FileExistsError(f"{name} exists: remove it, or choose another name")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {name}: {target.parent} is not a folder; create it")
    return target


def _check_beside(path: Path, model: bytes) -> None:
    if path.exists() and path.read_bytes() != model:
        raise FileExistsError(
            f"{path} exists and is of another model: a merged .npz file has its tokenizer beside "
            "it. Choose another folder for --out"
        )


def _tell_origin(folder: str, base: str) -> None:
    """Says what the merged file cannot know of an adapter: another base, or another storage."""
    from paligemma_lib.checkpoint.adapters import adapter_metadata
    from paligemma_lib.checkpoint.adapters.adapter_folder import BASE_STORAGE, adapter_folder
    from paligemma_lib.checkpoint.adapters.peft_settings import read_settings

    made_for = read_settings(adapter_folder(folder)).base
    if made_for not in ("", base):
        print(f"note: {visible(folder)} was made for {visible(made_for)}", file=sys.stderr)
    storage = adapter_metadata(folder).get(BASE_STORAGE, "")
    if storage not in _PLAIN:
        print(
            f"note: {visible(folder)} was trained beside weights in {visible(storage)}; they are "
            "merged with plain ones, and the comparison is with plain ones too",
            file=sys.stderr,
        )
