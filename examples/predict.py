"""Captions for pictures: in the terminal, as JSON lines or CSV, as a page or a sheet of pictures.

    python examples/predict.py                                    # a dozen drawn pictures
    python examples/predict.py Images/ more/*.jpg --checkpoint paligemma-3b-pt-224.f16.npz
    python examples/predict.py --tfds flickr8k_tfds --split test --out-dir results
    python examples/predict.py photo.jpg --sampler beam --beams 4 --out captions.html

Without --checkpoint, the small model of the library speaks, which knows drawn pictures only.
Exit code: 0 when every picture has its caption, 3 when some were skipped because they could not be
read (they are listed), 1 for an error, 2 for a wrong command.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
from options import add_captioning_options, captions_of, drawn_scenes, joined, printable

import paligemma_lib as pg
from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.data.sources import Source
from paligemma_lib.decode import Caption
from paligemma_lib.evaluation import alternatives_of, environment, picture_of
from paligemma_lib.report import Example, Report, contact_sheet, write_report
from paligemma_lib.runtime.atomic import is_remote, path_of, whole_file

DRAWN = 12  # pictures where none are given
SHOWN = 48  # pictures on a page or a sheet
SKIPPED = 3  # exit code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="*", help="files, folders, or patterns in quotes")
    parser.add_argument("--tfds", metavar="NAME", help="a prepared data set, instead of pictures")
    parser.add_argument("--split", default="test", help="of --tfds (default: test)")
    parser.add_argument("--data-dir", help="where TFDS keeps it, if not in its usual place")
    parser.add_argument(
        "--out", type=path_of, action="append", default=[], help=f"a file: {', '.join(FORMATS)}"
    )
    parser.add_argument("--out-dir", type=path_of, help="a folder for captions.* of all four kinds")
    add_captioning_options(parser)
    args = parser.parse_intermixed_args(argv)  # options may stand before pictures
    if args.pictures and args.tfds:
        parser.error("give either pictures or --tfds NAME")
    if wrong := [str(path) for path in args.out if path.suffix not in FORMATS]:
        parser.error(f"--out {wrong[0]}: expected a name that ends in {', '.join(FORMATS)}")
    try:
        with joined(args), source_of(args) as source:
            return predict(args, source)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def source_of(args: argparse.Namespace) -> contextlib.AbstractContextManager[Source]:
    """The pictures that were given, or else drawn ones."""
    if args.tfds:
        source = pg.data.from_tfds(args.tfds, args.split, data_dir=args.data_dir)
        return contextlib.nullcontext(source)
    if args.pictures:
        return contextlib.nullcontext(pg.data.from_pictures(args.pictures))
    return drawn_scenes(DRAWN)


def predict(args: argparse.Namespace, source: Source) -> int:
    """Captions, prints and writes; returns the exit code. Of several processes, one speaks."""
    speaks = jax.process_index() == 0
    outputs = list(args.out)
    if args.out_dir:
        outputs += [args.out_dir / f"captions{suffix}" for suffix in FORMATS]
        if speaks:
            args.out_dir.mkdir(parents=True, exist_ok=True)
    local = [path for path in outputs if not is_remote(path)]
    if speaks and (missing := [path for path in local if not path.parent.is_dir()]):
        raise FileNotFoundError(f"cannot write {missing[0]}: its folder is not there; create it")

    done: list[Captioned] = []
    skipped: list[Skipped] = []
    for result in captions_of(args, source):
        if isinstance(result, Captioned):
            done.append(result)
            line = f"{printable(result.image_id):<28}  {printable(result.caption.text)}"
        else:
            skipped.append(result)
            line = f"skipped {printable(f'{result.where}: {result.problem}')}"
        if speaks:
            print(line, flush=True, file=sys.stderr if isinstance(result, Skipped) else sys.stdout)
    code = SKIPPED if skipped else 0
    if not speaks:
        return code
    for path in outputs:
        if path.suffix == ".html":
            write_report(path, report(done, skipped, source, args), pictures=SHOWN)
        else:
            with whole_file(path) as file:
                file.write(CONTENTS[path.suffix](done, source))
        print(f"wrote {path}", file=sys.stderr)
    if skipped:
        print(f"{len(skipped)} of {len(source)} pictures were skipped", file=sys.stderr)
    return code


def json_lines(done: Sequence[Captioned], source: Source) -> bytes:
    """A line for each picture, with log-probabilities in nats."""
    lines = []
    for result in done:
        caption, *others = _weighed(result.caption)
        lines.append(json.dumps({"image": result.image_id, **caption, "alternatives": others}))
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def table(done: Sequence[Captioned], source: Source) -> bytes:
    """CSV in the layout of Kaggle's captions.txt."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "caption"])
    rows.writerows((result.image_id, result.caption.text) for result in done)
    return text.getvalue().encode("utf-8")


def sheet(done: Sequence[Captioned], source: Source) -> bytes:
    """A PNG of the first pictures with their captions."""
    file = io.BytesIO()
    shown = [(picture_of(source, each.number), each.caption.text) for each in done[:SHOWN]]
    contact_sheet(shown).save(file, "PNG")
    return file.getvalue()


def report(
    done: Sequence[Captioned], skipped: Sequence[Skipped], source: Source, args: argparse.Namespace
) -> Report:
    """The page."""
    examples = [
        Example(
            each.image_id,
            picture_of(source, each.number),
            each.caption.text,
            references=each.references,
            alternatives=alternatives_of(each.caption),
        )
        for each in done
    ]
    return Report(
        f"Captions of {len(done):,} pictures",
        subtitle=args.checkpoint,
        warnings=[f"Skipped {each.where}: {each.problem}" for each in skipped],
        examples=examples,
        config={name: value for name, value in vars(args).items() if value not in (None, [])},
        environment=environment(),
    )


def _weighed(caption: Caption) -> list[dict[str, object]]:
    return [
        {"caption": each.text, "logprob": round(sum(each.logprobs), 4)}
        for each in (caption, *caption.alternatives)
    ]


CONTENTS: dict[str, Callable[[Sequence[Captioned], Source], bytes]] = {
    ".jsonl": json_lines,
    ".csv": table,
    ".png": sheet,
}
FORMATS = (*CONTENTS, ".html")

if __name__ == "__main__":
    sys.exit(main())
