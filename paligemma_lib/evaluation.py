"""Turns captions and their scores into a report: score rows, examples, a summary, and files.

done = {"1.jpg": Captioned(...), ...}
rows = score_rows(score(references, captions), permuted_scores(references, captions))
report = Report("Captions", summary=[sentence(rows[0])], scores=rows,
                examples=examples_of(source, done, scores), rank_by=rows[0].name)
write_outcome(folder, report)         # report.html and scores.json
"""

import contextlib
import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import jax

from paligemma_lib.batch import EOS
from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.data.sources import Source
from paligemma_lib.decode import Caption
from paligemma_lib.metrics import Difference, ImageId, Scores, average_precision, permuted
from paligemma_lib.metrics.corpus_scores import SCALE as SCALE
from paligemma_lib.metrics.scoring import score_quietly
from paligemma_lib.metrics.tasks import Scorer
from paligemma_lib.report import Alternative, Example, Report, Score, write_report
from paligemma_lib.runtime.atomic import atomic_write
from paligemma_lib.runtime.strict_json import dumps

_CUT_OFF = 0.05  # share of captions without EOS above which there is a warning
PACKAGES = ("paligemma_lib", "jax", "flax", "tensorflow", "numpy", "pillow")
NOTES = {  # scores that a report shows, the one that counts first, and what they measure
    "CIDEr": "agreement with people on the words that matter, 0 to 1,000",
    "True captions": "captions that are true of the scene in every word, 0 to 100",
    "True and whole": "true captions that name every group of things, 0 to 100",
    "Right things": "things whose kind, number and colour are right, 0 to 100",
    "Right kinds": "things that are there, whatever their number and colour, 0 to 100",
    "BLEU-4": "runs of up to four words in common, 0 to 100",
    "ROUGE-L": "longest common subsequence, 0 to 100",
    "BLEU-1": "words in common, 0 to 100",
    "VQA accuracy": "answers that people gave too, 0 to 100",
    "Exact match": "answers that equal one by a person, 0 to 100",
    "Mean mask IoU": "overlap of the true masks with their matches, 0 to 100",
    "Mask F1": "masks that are found and right, at IoU 0.5, 0 to 100",
    "Mean IoU": "overlap of the true boxes with their matches, 0 to 100",
    "F1": "boxes that are found and right, at IoU 0.5, 0 to 100",
}


def score_rows(
    scores: Scores,
    chance: Scores | None = None,
    before: Scores | None = None,
    differences: Mapping[str, Difference] | None = None,
) -> list[Score]:
    """Returns the score rows of a report, scaled by 100, the one that counts first.

    Args:
      scores: scores of the captions.
      chance: scores of the same captions, each assigned to another image.
      before: scores of other captions of the same images, to compare with.
      differences: differences between `scores` and `before`, as `pg.metrics.compare` returns them.
    """
    intervals = scores.intervals()
    rows = []
    for name in names_of(scores):
        note = NOTES[name]
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


def names_of(scores: Scores) -> list[str]:
    """Returns the names of the scores that a report shows, the one that counts first."""
    return [name for name in NOTES if name in scores.corpus]


def permuted_scores(
    references: Mapping[ImageId, Sequence[str]],
    captions: Mapping[ImageId, str],
    scorer: Scorer = score_quietly,
) -> Scores | None:
    """Returns the scores of captions assigned to other images; None if there is one image only."""
    if len(captions) == 1:
        return None
    return permuted(references, captions, seed=0, scorer=scorer)


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
                    for name in names_of(scores)[:2]
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


def precision_told(
    references: Mapping[ImageId, Sequence[str]], captions: Mapping[ImageId, str]
) -> str:
    """Returns a sentence on the average precision of boxes, or why there is none."""
    found = average_precision(references, captions)
    if found.ap is None or found.ap50 is None:
        return f"{found.reason}."
    return f"AP is {SCALE * found.ap:.1f}, and {SCALE * found.ap50:.1f} at IoU 0.5."


def skipped_told(skipped: Sequence[Skipped]) -> tuple[list[str], list[str]]:
    """Returns what a report says of images without a score: a summary, and a warning for each."""
    if not skipped:
        return [], []
    summary = f"Left out as damaged, and not scored: {len(skipped):,} images."
    return [summary], [f"Skipped {each.where}: {each.problem}" for each in skipped]


def cut_off_told(captioned: Collection[Captioned]) -> list[str]:
    """Returns a warning if many captions are cut off at `max_new_tokens`; see `Scores.warnings`.

    It takes the tokens of captions, so a run adds it to the warnings of its scores, which see text
    alone. One in twenty may be cut off: long captions happen.
    """
    cut = [each for each in captioned if EOS not in each.caption.tokens]
    if len(cut) <= _CUT_OFF * len(captioned):
        return []
    share = f"{len(cut):,} of {len(captioned):,} captions ({len(cut) / len(captioned):.0%})"
    first = ", ".join(repr(each.image_id) for each in cut[:3])
    return [
        f"{share} are cut off after {max(len(each.caption.tokens) for each in cut)} tokens: allow "
        "more new tokens, and if captions go on for ever, check that training included EOS. "
        f"First: {first}"
    ]


def write_outcome(folder: Path, report: Report) -> Path:
    """Writes scores.json and report.html, and returns the path of the report."""
    outcome = {
        "scale": SCALE,  # factor of all scores below: a BLEU of 0.3 is stored as 30
        "scores": {row.name: dataclasses.asdict(row) for row in report.scores},
        "warnings": list(report.warnings),
    }
    with atomic_write(folder / "scores.json") as file:
        file.write(dumps(outcome, indent=2).encode("utf-8"))
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
