"""Scores existing captions against reference captions by people.

  paligemma score --references captions.txt --predictions predictions.json
  paligemma score --references references.json --predictions captions.csv --json
  paligemma score --references a.json --predictions p.json --task answer
  paligemma score --references a.json --predictions p.json --clip a/b --images I

Each file is what `paligemma caption` writes (CSV, JSON lines, Parquet), a table with columns image
and caption, Flickr8k.token.txt, JSON lines with `image`, `prefix` and `suffix`, or JSON: an object
that maps images to captions, Karpathy's, or annotations and results of COCO and VQA. References of
images without predictions are ignored. Names of images may differ in case, folders and suffixes.
CIDEr of few images needs a file of references of many in --corpus, which says what words are rare.
CIDEr is CIDEr-D, as in COCO's evaluation.

--clip adds CLIPScore and RefCLIPScore, which compare captions with the images in --images, by
SigLIP or CLIP: a folder of safetensors, or a model of the Hugging Face Hub.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.data_options import add_task_option, codec_of
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.strict_json import dumps
from paligemma_lib.runtime.visible_text import visible

if TYPE_CHECKING:
    from paligemma_lib.metrics import ImageId, Scores

    References = Mapping[ImageId, Sequence[str]]

USAGE = "--references FILE --predictions FILE [options]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("--references", type=Path, required=True, metavar="FILE")
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--corpus", type=Path, metavar="FILE", help="references whose n-grams CIDEr counts"
    )
    add_task_option(parser)
    parser.add_argument("--java-scores", action="store_true", help="METEOR and SPICE too")
    parser.add_argument("--clip", metavar="MODEL", help="SigLIP or CLIP, for CLIPScore")
    parser.add_argument("--images", metavar="FOLDER", help="folder of the images, for --clip")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the scores with confidence intervals; returns the exit code."""
    if bool(args.clip) != bool(args.images):
        raise WrongUse("--clip needs --images, and --images needs --clip: give both or none")
    args.task = args.task or "caption"
    codec = codec_of(args)
    if args.task != "caption" and (args.corpus or args.java_scores or args.clip):
        raise WrongUse("--corpus, --java-scores and --clip are about captions: leave out --task")
    from paligemma_lib.metrics import (
        average_precision,
        document_frequencies,
        image_files,
        meteor,
        read_captions,
        renamed,
        score,
        single,
        spice,
    )
    from paligemma_lib.metrics.corpus_scores import SCALE
    from paligemma_lib.metrics.tasks import scorer_of

    references = read_captions(args.references)
    files = image_files(args.references)
    captions = single(read_captions(args.predictions, by_prompt=False), args.predictions)
    captions = renamed(captions, references, args.predictions, files)
    corpus = document_frequencies(read_captions(args.corpus)) if args.corpus else None
    theirs = {image: references[image] for image in captions}
    if args.task == "caption":
        scores = score(theirs, captions, document_frequencies=corpus)
    else:
        scores = scorer_of(args.task, codec)(theirs, captions)
    found, intervals = dict(scores.corpus), scores.intervals()
    if args.clip:
        clip = _clip_scores(args.clip, args.images, captions, theirs, files)
        found, intervals = {**found, **clip.corpus}, intervals | clip.intervals()
    rows: dict[str, dict[str, float]] = {
        name: {
            "value": SCALE * value,
            "low": SCALE * intervals[name].low,
            "high": SCALE * intervals[name].high,
        }
        for name, value in found.items()
    }
    missing = []
    if args.task == "detect":
        precision = average_precision(theirs, captions)
        missing += [precision.reason] * bool(precision.reason)
        for name, value in (("AP", precision.ap), ("AP50", precision.ap50)):
            if value is not None:
                rows[name] = {"value": SCALE * value}
    if args.java_scores:
        for name, java in (
            ("METEOR", meteor(theirs, captions)),
            ("SPICE", spice(theirs, captions)),
        ):
            if java.value is None:
                missing.append(str(java.reason))
            else:
                rows[name] = {"value": SCALE * java.value}
    warnings = [*scores.warnings, *missing]
    if args.json:
        told = {"images": len(captions), "scale": SCALE, "scores": rows}
        print(dumps({**told, "warnings": warnings}, indent=2))
    else:
        print(f"{len(captions):,} images")
        width = max(map(len, rows))
        for name, row in rows.items():
            bounds = f"  {row['low']:.1f} to {row['high']:.1f}" if "low" in row else ""
            print(f"{name:<{width}} {row['value']:6.1f}{bounds}")
        for warning in warnings:
            print(f"warning: {visible(warning)}", file=sys.stderr)
    return 1 if missing else 0


def _clip_scores(
    model: str,
    folder: str,
    captions: Mapping[ImageId, str],
    references: References,
    named: Mapping[ImageId, str],
) -> Scores:
    """Compares the captions with images in a folder, which may be named in another way.

    Args:
      model, folder: options of the command.
      captions, references: of the same images.
      named: names of the files of images, where they are known.
    """
    from paligemma_lib import embedding
    from paligemma_lib.data.image_files import from_image_files
    from paligemma_lib.runtime.name_matching import SHOWN, NameIndex

    files = from_image_files([folder])
    index = NameIndex(list(files.names))
    names = {image: index.find(named.get(image, str(image))) for image in captions}
    if lost := [image for image, name in names.items() if name is None]:
        raise ValueError(
            f"{len(lost):,} of {len(names):,} captions have no image of their name in {folder}: "
            f"{', '.join(map(repr, lost[:SHOWN]))}; it has {files.names[0]!r}, for example"
        )
    numbers = {name: number for number, name in enumerate(files.names)}
    images = {
        image: lambda number=numbers[str(name)]: files.read([number])[0].image
        for image, name in names.items()
    }
    return embedding.score_images(embedding.load(model), images, captions, references)
