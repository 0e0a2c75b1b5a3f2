"""Says whether everything is in place for a run, and what to do where it is not.

    python -m paligemma_lib.doctor                                      # this installation
    python -m paligemma_lib.doctor --config=examples/configs/flickr8k.py --config.batch_size=16
    python -m paligemma_lib.doctor --checkpoint=CHECKPOINT --data=flickr8k_tfds --workdir=runs

With --config it takes what examples/finetune.py takes, and makes the checks that such a run begins
with, of the captions on some records. Of several processes, each checks its own machine and the
first speaks; the others tell what fails. Exit code, the same in all: 0 when all is well, 1 when
something is not, 2 for a wrong command.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("GCS_READ_CACHE_DISABLED", "1")

import jax

from paligemma_lib.data.sources import Source, from_tfds
from paligemma_lib.data.tables import from_folder, from_jsonl
from paligemma_lib.doctor.checks import CHECKS
from paligemma_lib.doctor.config import config_of, setup_of
from paligemma_lib.doctor.examination import examine
from paligemma_lib.doctor.setup import Setup, Stage
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.trainable import Select

PATIENCE = 4.0  # seconds for each check that asks a network
RECORDS = 500  # of each source whose captions are looked at
TARGETS = {
    "checkpoint": "an .npz file, a folder of safetensors or of a run, gs://, Kaggle, or nano",
    "tokenizer": "a .model file (default: the checkpoint's own, or PaliGemma's)",
    "data": "the name of a TFDS data set, a folder of captions.txt and Images/, or a .jsonl file",
    "data-dir": "where TFDS keeps it, if not in its usual place",
    "split": "of a TFDS data set (default: train)",
    "workdir": "where the run will write, a folder or gs://",
    "trainable": "what will train (default: attention)",
    "batch-size": "pictures in a step, over all devices (default: 32)",
    "text-len": "slots for prompt and captions (default: 128)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m paligemma_lib.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="and --config.FIELD=VALUE to change it")
    for name, description in TARGETS.items():
        number = name in ("batch-size", "text-len")
        parser.add_argument(f"--{name}", type=int if number else str, help=description)
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU alone")
    for name, (kind, description) in processes.OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, help=description)
    args, changes = parser.parse_known_args(argv)
    given = [f"--{n}" for n in TARGETS if getattr(args, n.replace("-", "_")) is not None]
    if not args.config or not all(each.startswith("--config.") for each in changes):
        if changes:
            parser.error(f"unexpected arguments: {' '.join(changes)}")
    elif given:
        parser.error(f"--config says it all: give --config.FIELD=VALUE, not {' '.join(given)}")
    if args.cpu:
        jax.config.update("jax_platforms", "cpu")
    try:
        with processes.joined(args.coordinator, args.processes, args.process):
            setup = setup_of(config_of(args.config, changes)) if args.config else targeted(args)
            return tell(dataclasses.replace(setup, records=RECORDS))
    except (ValueError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1


def tell(setup: Setup) -> int:
    """Makes all checks and prints a line for each; returns the exit code."""
    speaks = jax.process_index() == 0
    where = "" if speaks else f" (process {jax.process_index()})"
    failed = 0
    for finding in examine(setup, PATIENCE):
        failed += not finding.passed
        if speaks or not finding.passed:
            mark = "ok  " if finding.passed else "FAIL"
            text = " ".join(finding.text.split())
            print(f"{mark} {finding.name:<10} {text}{where}", flush=True)
    failed = max(int(each) for each in processes.gather(b"%d" % failed))
    if speaks:
        print(f"{failed} of {len(CHECKS)} checks failed" if failed else "everything is in place")
    return 1 if failed else 0


def targeted(args: argparse.Namespace) -> Setup:
    """What options name; nothing but the small model of the library by default."""
    named = {
        "checkpoint": args.checkpoint,
        "tokenizer_path": args.tokenizer,
        "data_dir": args.data_dir,
        "workdir": args.workdir,
        "stages": args.trainable and (Stage(0, (Select(args.trainable),)),),
        "batch_size": args.batch_size,
        "text_len": args.text_len,
    }
    setup = Setup(**{name: value for name, value in named.items() if value is not None})
    if not args.data:
        return setup
    source: Source
    if args.data.endswith(".jsonl"):
        source = from_jsonl(args.data)
    elif (path_of(args.data) / "captions.txt").is_file():
        source = from_folder(args.data)
    else:
        source = from_tfds(args.data, args.split or "train", data_dir=args.data_dir)
        setup = dataclasses.replace(setup, data_set=args.data)
    return dataclasses.replace(setup, data={"train": source})


if __name__ == "__main__":
    sys.exit(main())
