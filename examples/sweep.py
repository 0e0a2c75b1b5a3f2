"""The same run with several values of one field of its config, and which of them did best.

    python examples/sweep.py optimizer.learning_rate 3e-4 1e-3 3e-3 --folder sweep
    python examples/sweep.py batch_size 8 16 --folder sweep -- --config=my.py --config.epochs=0.5

What stands behind `--` goes to `finetune.py`, which makes the runs one after the other, each in a
folder of its own. The same command goes on where it was stopped: finished runs are not repeated.
The table is printed, and `sweep.html` in the folder has it with a plot.
"""

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from paligemma_lib.report import Chart, Line, Report, write_report

FINETUNE = Path(__file__).parent / "finetune.py"
SCORES, METRICS = "scores.json", "metrics.jsonl"  # what finetune.py leaves at its end
WIDE = 20  # values this far apart are plotted by their logarithms


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to: its lowest validation loss in nats per token, its final scores."""

    value: str
    loss: float
    scores: dict[str, dict[str, float]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("field", help="of the config, such as optimizer.learning_rate")
    parser.add_argument("values", nargs="+")
    parser.add_argument("--folder", type=Path, required=True, help="where all runs go")
    given = list(sys.argv[1:] if argv is None else argv)
    border = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:border])
    if len(set(args.values)) < len(args.values):
        parser.error(f"a value is given twice: {' '.join(args.values)}")
    if wrong := [value for value in args.values if not value or "/" in value]:
        parser.error(f"{wrong[0]!r} cannot name the folder of a run")

    outcomes = []
    for value in args.values:
        workdir = args.folder / f"{args.field}={value}"
        if not (workdir / SCORES).is_file():
            print(f"{args.field}={value}: running in {workdir}", file=sys.stderr)
            setting = [f"--config.{args.field}={value}", f"--config.workdir={workdir}"]
            ended = subprocess.run([sys.executable, str(FINETUNE), *given[border + 1 :], *setting])
            if ended.returncode:
                print(f"{args.field}={value} ended with {ended.returncode}", file=sys.stderr)
                return 1
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
        values = "  ".join(f"{each.scores[name]['value']:8.3f}" for name in names)
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
        f"CIDEr {each.scores['CIDEr']['value']:.3f}"
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


if __name__ == "__main__":
    sys.exit(main())
