"""How good captions are: scores with intervals, the best and the worst, a page to look at.

    python examples/evaluate.py --out-dir results                 # a hundred drawn pictures
    python examples/evaluate.py --checkpoint my.npz --tfds flickr8k_tfds --out-dir results
    python examples/evaluate.py --folder flickr8k --sampler beam --out-dir results
    python examples/evaluate.py --compare a.json b.json --tfds flickr8k_tfds --out-dir a-b

Without --checkpoint, the small model of the library speaks, which knows drawn pictures only.
Writes to the folder `predictions.json`, in the results format of COCO captions, `scores.json` and
`report.html`. With --compare, two files of predictions are scored, by how much the second is
better, and no model is needed. Exit code: 0, or 3 when pictures were skipped because they could not
be read (they are listed, and not scored), 1 for an error, 2 for a wrong command.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
from options import add_captioning_options, captions_of, drawn_scenes, joined, printable

import paligemma_lib as pg
from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.data.sources import Source
from paligemma_lib.evaluation import (
    RANK_BY,
    environment,
    examples_of,
    permuted_scores,
    picture_of,
    score_rows,
    sentence,
    write_outcome,
)
from paligemma_lib.metrics import (
    ImageId,
    compare,
    meteor,
    read_predictions,
    score,
    spice,
    write_predictions,
)
from paligemma_lib.report import Example, Report
from paligemma_lib.runtime.atomic import path_of

DRAWN = 100  # pictures where no data are given
CHUNK = 64  # records read at a time where only their captions are wanted
SKIPPED = 3  # exit code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--compare", nargs=2, type=path_of, metavar="JSON", help="two predictions")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--tfds", metavar="NAME", help="a prepared data set")
    where.add_argument("--folder", help="a folder with captions.txt and Images/")
    where.add_argument("--jsonl", help="a file of JSON lines with image and suffix")
    parser.add_argument("--split", default="test", help="of --tfds (default: test)")
    parser.add_argument("--data-dir", help="where TFDS keeps it, if not in its usual place")
    parser.add_argument("--out-dir", type=path_of, required=True)
    parser.add_argument(
        "--java-scores", action="store_true", help="METEOR and SPICE too, which take minutes"
    )
    add_captioning_options(parser, what)
    args = parser.parse_args(argv)
    try:
        with joined(args), source_of(args) as source:
            if jax.process_index() == 0:
                args.out_dir.mkdir(parents=True, exist_ok=True)
            return compare_files(args, source) if args.compare else evaluate(args, source)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def source_of(args: argparse.Namespace) -> contextlib.AbstractContextManager[Source]:
    """Pictures and the captions by people; without any, drawn ones."""
    if args.folder:
        return contextlib.nullcontext(pg.data.from_folder(args.folder))
    if args.jsonl:
        return contextlib.nullcontext(pg.data.from_jsonl(args.jsonl))
    if args.tfds:
        source = pg.data.from_tfds(args.tfds, args.split, data_dir=args.data_dir)
        return contextlib.nullcontext(source)
    return drawn_scenes(DRAWN)


def evaluate(args: argparse.Namespace, source: Source) -> int:
    """Captions and scores a source; returns the exit code. Of several processes, one speaks."""
    speaks = jax.process_index() == 0
    done: dict[ImageId, Captioned] = {}
    skipped: list[Skipped] = []
    for result in captions_of(args, source):
        if isinstance(result, Skipped):
            skipped.append(result)
        elif result.image_id in done:
            raise ValueError(f"{result.image_id} is in the data twice: merge its captions")
        else:
            done[result.image_id] = result
        if (count := len(done) + len(skipped)) % 100 == 0 and speaks:
            print(f"{count:,} of {len(source):,} captions", file=sys.stderr)
    if not done:
        reason = f": {skipped[0].problem}" if skipped else ""
        raise ValueError(f"none of {len(source)} pictures could be captioned{reason}")
    code = SKIPPED if skipped else 0
    if not speaks:
        return code
    captions = {image_id: result.caption.text for image_id, result in done.items()}
    references = {image_id: result.references for image_id, result in done.items()}
    predictions = args.out_dir / "predictions.json"
    write_predictions(predictions, captions)
    scores = score(references, captions)
    rows = score_rows(scores, permuted_scores(references, captions))
    report = Report(
        f"Captions by {Path(args.checkpoint).name}",
        subtitle=f"{len(done):,} {pictures_of(args)}",
        summary=[sentence(rows[0]), *java_scores(args, references, captions)],
        warnings=[*scores.warnings, *(f"Skipped {s.where}: {s.problem}" for s in skipped)],
        scores=rows,
        examples=examples_of(source, done, scores),
        rank_by=RANK_BY,
        config=config_of(args),
        environment=environment(),
        files={"Predictions": predictions},
    )
    announce(report, write_outcome(args.out_dir, report))
    return code


def compare_files(args: argparse.Namespace, source: Source) -> int:
    """Scores two files of predictions against each other; returns the exit code."""
    if jax.process_index() > 0:
        return 0
    former, latter = map(read_predictions, args.compare)
    numbers, references = references_of(source)
    before, after = score(references, former), score(references, latter)
    differences = compare(after, before)
    rows = score_rows(after, permuted_scores(references, latter), before, differences)
    examples = [
        Example(
            str(image_id),
            picture_of(source, numbers[image_id]),
            latter[image_id],
            before=former[image_id],
            references=references[image_id],
            scores={RANK_BY: float(after.per_image[RANK_BY][number])},
        )
        for number, image_id in enumerate(after.image_ids)
    ]
    a, b = (path.name for path in args.compare)
    report = Report(
        f"{b} against {a}",
        subtitle=f"{len(latter):,} {pictures_of(args)}",
        summary=[
            sentence(rows[0], differences[RANK_BY]),
            *java_scores(args, references, latter),
        ],
        warnings=[f"{b}: {w}" for w in after.warnings] + [f"{a}: {w}" for w in before.warnings],
        scores=rows,
        score_label=b,
        before_label=a,
        examples=examples,
        rank_by=RANK_BY,
        config=config_of(args),
        environment=environment(),
        files={"Before": args.compare[0], "After": args.compare[1]},
    )
    announce(report, write_outcome(args.out_dir, report))
    return 0


def config_of(args: argparse.Namespace) -> dict[str, object]:
    """What was asked for, for the report."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    return {name: value for name, value in given.items() if name != "compare"}  # under Files


def pictures_of(args: argparse.Namespace) -> str:
    """What was captioned, in words."""
    name = args.folder or args.jsonl or args.tfds
    return f"pictures of {name}" if name else "drawn pictures"


def java_scores(
    args: argparse.Namespace,
    references: Mapping[ImageId, Sequence[str]],
    captions: Mapping[ImageId, str],
) -> list[str]:
    """A sentence for each score of the Java programs, or on how to get it, if they are wanted."""
    if not args.java_scores:
        return []
    found = {"METEOR": meteor(references, captions), "SPICE": spice(references, captions)}
    return [
        f"{name} is {result.value:.3f}." if result.value is not None else f"{result.reason}."
        for name, result in found.items()
    ]


def references_of(source: Source) -> tuple[dict[ImageId, int], dict[ImageId, tuple[str, ...]]]:
    """For each picture its number in the source, and the captions that people gave it."""
    numbers: dict[ImageId, int] = {}
    references: dict[ImageId, tuple[str, ...]] = {}
    for start in range(0, len(source), CHUNK):
        chunk = range(start, min(start + CHUNK, len(source)))
        for number, record in zip(chunk, source.read(chunk), strict=True):
            numbers[record.image_id], references[record.image_id] = number, record.captions
    return numbers, references


def announce(report: Report, path: Path) -> None:
    """Prints the outcome."""
    print("\n".join(report.summary))
    for row in report.scores:
        print(f"{row.name:<8} {row.value:.3f}  {row.low:.3f} to {row.high:.3f}")
    for warning in report.warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
