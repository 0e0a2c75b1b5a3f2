"""Repeats a run with several values of one field of its config, and says which value is best.

  paligemma sweep optimizer.learning_rate 1e-3 2e-3 --folder sweep
  paligemma sweep batch_size 8 16 --folder sweep --config=my.py

The runs are made one after the other, each in its own folder. After a stop, the same command
continues: it does not repeat finished runs. It prints a table of the outcomes, and writes them with
plots to sweep.html in the folder.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.parser import Parser
from paligemma_lib.report import Chart, Line, Report, write_report
from paligemma_lib.run.config_files import load
from paligemma_lib.runtime.launch import run_one
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.runtime.visible_text import visible, visible_lines
from paligemma_lib.train.metrics_file import FILE, read_metrics

SCORES, METRICS = "scores.json", FILE  # files in the workdir of a finished run
_MAX_BYTES = 256 << 20
_PLOTTED = 2  # scores with a plot: the first ones, which count most
WIDE = 20  # ratio of largest to smallest value above which the x axis is logarithmic


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one run.

    Attributes:
      value: the value of the field, as text.
      loss: lowest validation loss, in nats per token; infinite if none was measured.
      scores: by name, times 100, the one that counts first; NaN for one that is not finite.
      problem: what is wrong with `metrics.jsonl`, which has the losses; "" if nothing is.
    """

    value: str
    loss: float
    scores: dict[str, float]
    problem: str = ""


USAGE = "FIELD VALUE VALUE ... --folder FOLDER [options]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("field", help="of the config, such as optimizer.learning_rate")
    parser.add_argument("values", nargs="+")
    parser.add_argument("--folder", type=Path, required=True, help="where all runs go")
    parser.takes_config()
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU only")


def run(args: argparse.Namespace) -> int:
    """Makes the runs that are not finished, and compares all; returns the exit code."""
    if len(set(args.values)) < len(args.values):
        raise WrongUse(f"a value is given twice: {' '.join(args.values)}")
    if wrong := [value for value in args.values if not value or "/" in value]:
        raise WrongUse(f"{wrong[0]!r} cannot name the folder of a run")
    config = [f"--config={args.config_file}", *args.changes]
    settings = [f"--config.{args.field}={value}" for value in args.values]
    for setting in settings:  # find invalid values before hours are spent on the first run
        load(args.config_file, [*args.changes, setting])

    outcomes = []
    for value, setting in zip(args.values, settings, strict=True):
        workdir = args.folder / f"{args.field}={value}"
        if not (workdir / SCORES).is_file():
            print(visible(f"{args.field}={value}: running in {workdir}"), file=sys.stderr)
            command = [sys.executable, "-m", "paligemma_lib", "finetune", *config, setting]
            command += [f"--config.workdir={workdir}", *["--cpu"] * args.cpu]
            if code := run_one(command):
                print(visible(f"{args.field}={value} ended with exit code {code}"), file=sys.stderr)
                return 1 if code < 128 else code
        outcomes.append(outcome_of(value, workdir))
        if outcomes[-1].problem:
            print(visible(f"warning: {outcomes[-1].problem}"), file=sys.stderr)
    print(visible_lines(table(args.field, outcomes)))
    print(visible(str(write_report(args.folder / "sweep.html", page(args.field, outcomes)))))
    return 0


def outcome_of(value: str, workdir: Path) -> Outcome:
    """Reads the outcome of a finished run from its workdir.

    Raises:
      ValueError: its scores are damaged.
    """
    records, problem = read_metrics(workdir / METRICS)
    losses = [record.get("validation_loss", math.inf) for record in records]
    lowest = min((loss for loss in losses if math.isfinite(loss)), default=math.inf)
    rows = read_bounded(workdir / SCORES, _MAX_BYTES)
    try:
        scores = {
            name: math.nan if row["value"] is None else float(row["value"])
            for name, row in json.loads(rows)["scores"].items()
        }
        if not scores:
            raise ValueError("it has no scores")
    except Exception as error:
        raise ValueError(
            f"{workdir / SCORES} is not that of a finished run ({error!r}): remove the folder, and "
            "the run is made again"
        ) from error
    return Outcome(value, lowest, scores, problem and f"{workdir / METRICS}: {problem}")


def names_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns the names of the scores that all runs have, the one that counts first."""
    return [name for name in outcomes[0].scores if all(name in each.scores for each in outcomes)]


def best_of(outcomes: Sequence[Outcome]) -> tuple[Outcome | None, str, float]:
    """Returns the best run, by what it is the best, and the value; None if nothing is finite.

    That is the lowest validation loss. Where no run measured one, it is the first score.
    """
    if measured := [each for each in outcomes if math.isfinite(each.loss)]:
        best = min(measured, key=lambda each: each.loss)
        return best, "lowest validation loss", best.loss
    for name in names_of(outcomes)[:1]:
        if finite := [each for each in outcomes if math.isfinite(each.scores[name])]:
            best = max(finite, key=lambda each: each.scores[name])
            return best, f"highest {name}", best.scores[name]
    return None, "", math.nan


def table(field: str, outcomes: Sequence[Outcome]) -> str:
    """Returns the outcomes as a text table in which the best run is marked."""
    width = max(len(field), *(len(each.value) for each in outcomes))
    best, why, _ = best_of(outcomes)
    names = names_of(outcomes)
    widths = [max(8, len(name)) for name in names]
    heads = "  ".join(f"{name:>{size}}" for name, size in zip(names, widths, strict=True))
    lines = [f"{field:<{width}}  validation loss  {heads}"]
    for each in outcomes:
        values = "  ".join(
            f"{each.scores[name]:{size}.1f}" for name, size in zip(names, widths, strict=True)
        )
        mark = f"  <- {why}" if each is best else ""
        lines.append(f"{each.value:<{width}}  {_loss(each):>15}  {values}{mark}")
    return "\n".join(lines)


def page(field: str, outcomes: Sequence[Outcome]) -> Report:
    """Returns the outcomes as a page with plots."""
    best, why, reached = best_of(outcomes)
    x, x_name = places(field, [each.value for each in outcomes])
    order = sorted(range(len(x)), key=x.__getitem__)

    def line(name: str, y: Sequence[float]) -> Line:
        return Line(name, [x[k] for k in order], [y[k] for k in order])

    charts = []
    if has_losses := any(math.isfinite(each.loss) for each in outcomes):
        losses = line("lowest of the run", [each.loss for each in outcomes])
        charts.append(Chart("Validation loss", [losses], "nats per token", x_name))
    names = names_of(outcomes)[:_PLOTTED]
    for name in names:
        scores = line("at the end", [each.scores[name] for each in outcomes])
        charts.append(Chart(name, [scores], x_name=x_name))
    told = [
        f"{field}={each.value}: "
        + ", ".join(
            [f"validation loss {_loss(each)}", *(f"{n} {each.scores[n]:.1f}" for n in names[:1])]
        )
        for each in outcomes
    ]
    first = [f"{field}={best.value} has the {why}, {reached:.4f}."] if best else []
    if not has_losses:
        first.append("No run measured a validation loss.")
    return Report(
        f"Sweep of {field}",
        summary=[*first, *told],
        warnings=[each.problem for each in outcomes if each.problem],
        charts=charts,
    )


def _loss(outcome: Outcome) -> str:
    return f"{outcome.loss:.4f}" if math.isfinite(outcome.loss) else "none"


def places(field: str, values: Sequence[str]) -> tuple[list[float], str]:
    """Returns the x coordinates of the values in a plot, and the name of the axis.

    Numbers far apart are plotted by their logarithms. Values that are not distinct finite numbers
    are plotted at 1, 2, 3, ... in the order in which they are given.
    """
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if len(set(filter(math.isfinite, numbers))) < len(values):
        return [float(k) for k in range(1, len(values) + 1)], f"{field}, in the order given"
    if min(numbers) > 0 and max(numbers) > WIDE * min(numbers):
        return [math.log10(number) for number in numbers], f"log10 of {field}"
    return numbers, field
