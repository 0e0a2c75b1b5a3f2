"""Makes the same run with several values of one field of its config, and says which did best.

  paligemma sweep optimizer.learning_rate 3e-3 6e-3 --folder sweep
  paligemma sweep batch_size 8 16 --folder sweep --config=my.py

The runs are made one after the other, each in a folder of its own. The same command goes on where
it was stopped: finished runs are not repeated. The table is printed, and sweep.html in the folder
has it with a plot.
"""

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.parser import Parser
from paligemma_lib.report import Chart, Line, Report, write_report
from paligemma_lib.run.config_files import load

SCORES, METRICS = "scores.json", "metrics.jsonl"  # what a run leaves at its end
WIDE = 20  # values this far apart are plotted by their logarithms


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to: its lowest validation loss in nats per token, its final scores."""

    value: str
    loss: float
    scores: dict[str, dict[str, float]]


USAGE = "FIELD VALUE VALUE ... --folder FOLDER [options]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("field", help="of the config, such as optimizer.learning_rate")
    parser.add_argument("values", nargs="+")
    parser.add_argument("--folder", type=Path, required=True, help="where all runs go")
    parser.takes_config()
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU alone")


def run(args: argparse.Namespace) -> int:
    """Makes the runs that are missing, and compares; returns the exit code."""
    if len(set(args.values)) < len(args.values):
        raise WrongUse(f"a value is given twice: {' '.join(args.values)}")
    if wrong := [value for value in args.values if not value or "/" in value]:
        raise WrongUse(f"{wrong[0]!r} cannot name the folder of a run")
    config = [f"--config={args.config_file}", *args.changes]
    settings = [f"--config.{args.field}={value}" for value in args.values]
    for setting in settings:  # before hours are spent on the first
        load(args.config_file, [*args.changes, setting])

    outcomes = []
    for value, setting in zip(args.values, settings, strict=True):
        workdir = args.folder / f"{args.field}={value}"
        if not (workdir / SCORES).is_file():
            print(f"{args.field}={value}: running in {workdir}", file=sys.stderr)
            command = [sys.executable, "-m", "paligemma_lib", "finetune", *config, setting]
            command += [f"--config.workdir={workdir}", *["--cpu"] * args.cpu]
            if code := subprocess.run(command).returncode:
                print(f"{args.field}={value} ended with {code}", file=sys.stderr)
                return 1 if code < 128 else code
        outcomes.append(outcome_of(value, workdir))
    print(table(args.field, outcomes))
    print(write_report(args.folder / "sweep.html", page(args.field, outcomes)))
    return 0


def outcome_of(value: str, workdir: Path) -> Outcome:
    """Reads what a finished run has left."""
    lines = (workdir / METRICS).read_text("utf-8").splitlines()
    losses = [json.loads(line).get("validation_loss", math.inf) for line in lines]
    scores = json.loads((workdir / SCORES).read_text("utf-8"))["scores"]
    return Outcome(value, min(losses), scores)


def table(field: str, outcomes: Sequence[Outcome]) -> str:
    """The outcomes as text, the lowest loss marked."""
    width = max(len(field), *(len(each.value) for each in outcomes))
    best = min(outcomes, key=lambda each: each.loss)
    names = list(outcomes[0].scores)
    lines = [f"{field:<{width}}  validation loss  " + "  ".join(f"{name:>8}" for name in names)]
    for each in outcomes:
        values = "  ".join(f"{each.scores[name]['value']:8.1f}" for name in names)
        mark = "  <- lowest loss" if each is best else ""
        lines.append(f"{each.value:<{width}}  {each.loss:15.4f}  {values}{mark}")
    return "\n".join(lines)


def page(field: str, outcomes: Sequence[Outcome]) -> Report:
    """The outcomes as a page with plots."""
    best = min(outcomes, key=lambda each: each.loss)
    x, x_name = places(field, [each.value for each in outcomes])
    order = sorted(range(len(x)), key=x.__getitem__)

    def line(name: str, y: Sequence[float]) -> Line:
        return Line(name, [x[k] for k in order], [y[k] for k in order])

    losses = line("lowest of the run", [each.loss for each in outcomes])
    charts = [Chart("Validation loss", [losses], "nats per token", x_name)]
    for name in ("CIDEr", "BLEU-4"):
        scores = line("at the end", [each.scores[name]["value"] for each in outcomes])
        charts.append(Chart(name, [scores], x_name=x_name))
    told = [
        f"{field}={each.value}: validation loss {each.loss:.4f}, "
        f"CIDEr {each.scores['CIDEr']['value']:.1f}"
        for each in outcomes
    ]
    return Report(
        f"Sweep of {field}",
        summary=[f"{field}={best.value} has the lowest validation loss, {best.loss:.4f}.", *told],
        charts=charts,
    )


def places(field: str, values: Sequence[str]) -> tuple[list[float], str]:
    """Where the values stand in a plot, and what its axis says."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if len(set(filter(math.isfinite, numbers))) < len(values):
        return [float(k) for k in range(1, len(values) + 1)], f"run, by {field} as given"
    if min(numbers) > 0 and max(numbers) > WIDE * min(numbers):
        return [math.log10(number) for number in numbers], f"log10 of {field}"
    return numbers, field
