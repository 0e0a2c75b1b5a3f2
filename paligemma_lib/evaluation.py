"""Turns captions and their scores into a report: score rows, examples, a summary, and files.

done = {"1.jpg": Captioned(...), ...}
rows = score_rows(score(references, captions), permuted_scores(references, captions))
report = Report("Captions", summary=[sentence(rows[0])], scores=rows,
                examples=examples_of(source, done, scores), rank_by=RANK_BY)
write_outcome(folder, report)         # report.html and scores.json
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.data.sources import Source
from paligemma_lib.decode import Caption
from paligemma_lib.metrics import Difference, ImageId, Scores, permuted
from paligemma_lib.report import Alternative, Example, Report, Score, write_report
from paligemma_lib.runtime.atomic import atomic_write

SCALE = 100  # reports show scores times 100, as papers do; `metrics` returns them unscaled
RANK_BY = "CIDEr"
PACKAGES = ("paligemma_lib", "jax", "flax", "tensorflow", "numpy", "pillow")
NOTES = {
    "CIDEr": "agreement with people on the words that matter, 0 to 1,000",
    "BLEU-4": "runs of up to four words in common, 0 to 100",
    "ROUGE-L": "longest common subsequence, 0 to 100",
    "BLEU-1": "words in common, 0 to 100",
}


def score_rows(
    scores: Scores,
    chance: Scores | None = None,
    before: Scores | None = None,
    differences: Mapping[str, Difference] | None = None,
) -> list[Score]:
    """Returns the score rows of a report, scaled by 100, CIDEr first.

    Args:
      scores: scores of the captions.
      chance: scores of the same captions, each assigned to another image.
      before: scores of other captions of the same images, to compare with.
      differences: differences between `scores` and `before`, as `pg.metrics.compare` returns them.
    """
    intervals = scores.intervals()
    rows = []
    for name, note in NOTES.items():
        if differences:
            change = differences[name]
            value, low, high = (SCALE * each for each in change[:3])
            note = f"changed by {value:+.1f} ({low:+.1f} to {high:+.1f}), p = {change.p_value:.2g}"
        rows.append(
            Score(
                name,
                SCALE * scores.corpus[name],
                SCALE * intervals[name].low,
                SCALE * intervals[name].high,
                before=SCALE * before.corpus[name] if before else None,
                permuted=SCALE * chance.corpus[name] if chance else None,
                note=note,
            )
        )
    return rows


def permuted_scores(
    references: Mapping[ImageId, Sequence[str]], captions: Mapping[ImageId, str]
) -> Scores | None:
    """Returns the scores of captions assigned to other images; None if there is one image only."""
    return permuted(references, captions, seed=0) if len(captions) > 1 else None


def examples_of(source: Source, done: Mapping[ImageId, Captioned], scores: Scores) -> list[Example]:
    """Returns the example images of a report, with captions, references and scores of each."""
    examples = []
    for number, image_id in enumerate(scores.image_ids):
        result = done[image_id]
        examples.append(
            Example(
                str(image_id),
                image_of(source, result.number),
                result.caption.text,
                references=result.references,
                alternatives=alternatives_of(result.caption),
                scores={
                    name: SCALE * float(scores.per_image[name][number])
                    for name in (RANK_BY, "BLEU-4")
                },
            )
        )
    return examples


def sentence(row: Score, change: Difference | None = None) -> str:
    """Returns one sentence that states a score, and its change if there is one."""
    said = f"{row.name} is {row.value:.1f} ({row.low:.1f} to {row.high:.1f})"
    if change is not None:
        verb = "rose" if change.value >= 0 else "fell"
        said = (
            f"{row.name} {verb} from {row.before:.1f} to {row.value:.1f}, by "
            f"{abs(SCALE * change.value):.1f} (p = {change.p_value:.2g})"
        )
    if row.permuted is not None:
        said += f"; with the images permuted it is {row.permuted:.1f}"
    return f"{said}."


def skipped_told(skipped: Sequence[Skipped]) -> tuple[list[str], list[str]]:
    """Returns what a report says of images without a score: a summary, and a warning for each."""
    if not skipped:
        return [], []
    summary = f"Left out as damaged, and not scored: {len(skipped):,} images."
    return [summary], [f"Skipped {each.where}: {each.problem}" for each in skipped]


def write_outcome(folder: Path, report: Report) -> Path:
    """Writes scores.json and report.html, and returns the path of the report."""
    outcome = {
        "scale": SCALE,  # factor of all scores below: a BLEU of 0.3 is stored as 30
        "scores": {row.name: dataclasses.asdict(row) for row in report.scores},
        "warnings": list(report.warnings),
    }
    with atomic_write(folder / "scores.json") as file:
        file.write(json.dumps(outcome, indent=2).encode("utf-8"))
    return write_report(folder / "report.html", report)


def alternatives_of(caption: Caption) -> list[Alternative]:
    """Returns the caption and its alternatives with their probabilities; [] if it has none."""
    found = (caption, *caption.alternatives) if caption.alternatives else ()
    # Rounding may give a probability just above 1.
    return [Alternative(each.text, min(each.probability, 1.0)) for each in found]


def image_of(source: Source, number: int) -> Callable[[], bytes]:
    """Returns a function that reads the image again, so that only images shown are in memory."""
    return lambda: source.read([number])[0].image


def environment() -> dict[str, str]:
    """Returns the versions of packages and the devices in use, for reports."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # not installed
            versions[name] = importlib.metadata.version(name)
    kinds = [device.device_kind for device in jax.devices()]
    devices = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in sorted(set(kinds)))
    return {**versions, "devices": devices, "processes": str(jax.process_count())}
