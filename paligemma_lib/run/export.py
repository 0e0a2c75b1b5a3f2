"""Exports a trained run (fourth of four parts): model, test captions, scores and report.

export(prepared, outcome, before)
"""

import sys
from collections.abc import Mapping, Sequence

import jax

from paligemma_lib import hub
from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.checkpoint.adapters.adapter_folder import IN_WORKDIR
from paligemma_lib.checkpoint.adapters.merged_weights import merged
from paligemma_lib.checkpoint.final_export import export_final
from paligemma_lib.checkpoint.gathering import gather_params
from paligemma_lib.evaluation import (
    SCALE,
    cut_off_told,
    environment,
    image_of,
    permuted_scores,
    precision_told,
    score_rows,
    sentence,
    skipped_told,
    write_outcome,
)
from paligemma_lib.metrics import ImageId, compare, write_predictions
from paligemma_lib.report import Chart, Example, Line, Report
from paligemma_lib.run.adapter_export import export_adapter
from paligemma_lib.run.captioning import caption_test_images, first_of
from paligemma_lib.run.damage import DAMAGED, Damage, count_damage
from paligemma_lib.run.data_config import DataConfig
from paligemma_lib.run.drawn_scorer import TRUE, mask_codec, remark_on, scorer_of, tell_truth
from paligemma_lib.run.parameter_table import parameter_groups
from paligemma_lib.run.prepare import Prepared
from paligemma_lib.run.train import Outcome
from paligemma_lib.runtime.visible_text import visible
from paligemma_lib.train.tracking import Trackers

AFTER = "predictions.json"
_SHOWN = 3  # captions in the terminal


def export(
    prepared: Prepared,
    outcome: Outcome,
    before: Mapping[ImageId, str] | None,
    trackers: Trackers | None = None,
) -> None:
    """Exports the model, captions and scores the test images, and writes the report.

    All processes call it together; the main process writes the files.

    Args:
      prepared: the run.
      outcome: the result of its training.
      before: captions of the same images before training; None if there are none.
      trackers: get the scores; None: there are none.
    """
    config, workdir = prepared.config, prepared.workdir
    # The model first: whatever fails behind it, the work is not lost.
    if config.lora.rank:
        model = export_adapter(prepared, outcome.state)
    if config.export_name:
        model = workdir / config.export_name
        params = gather_params(outcome.state.averaged_params())
        if jax.process_index() == 0:
            export_final(
                model,
                merged(params),
                prepared.model,
                dtype=config.export_dtype,
                tokenizer=prepared.tokenizer.serialized(),
            )
        del params
    found, skipped = caption_test_images(prepared, outcome.state.averaged_params())
    damage = count_damage(prepared)
    if jax.process_index() > 0:
        return
    write_predictions(workdir / AFTER, {each.image_id: each.caption.text for each in found})
    report = report_of(prepared, outcome, found, skipped, before, damage)
    path = write_outcome(workdir, report)
    tell(report)
    if trackers is not None:
        trackers.scalars({f"test/{row.name}": row.value for row in report.scores}, outcome.steps)
    print(f"\nThe report: {visible(str(path))}\nThe model:  {visible(str(model))}")


def report_of(
    prepared: Prepared,
    outcome: Outcome,
    found: Sequence[Captioned],
    skipped: Sequence[Skipped],
    before: Mapping[ImageId, str] | None,
    damage: Damage,
) -> Report:
    """Scores the captions and makes the report of the run.

    Args:
      prepared: the run.
      outcome: the result of its training.
      found: captions of the test images after training.
      skipped: test images that could not be read; they are not scored.
      before: captions of the same images before training; None if there are none.
      damage: damaged records that were replaced.
    """
    captions: dict[ImageId, str] = {each.image_id: each.caption.text for each in found}
    references: dict[ImageId, Sequence[str]] = {each.image_id: each.references for each in found}
    scores = scorer_of(prepared.setup)(references, captions)
    quiet = scorer_of(prepared.setup, quiet=True)
    counted, named = skipped_told(skipped)
    warnings = [*scores.warnings, *cut_off_told(found), *named]
    warnings += [hub.NANO_KNOWS] if prepared.setup.knows_too_little else []
    if before and (lacks := captions.keys() - before.keys()):
        warnings.append(
            f"The captions before training lack {len(lacks):,} test images, such as "
            f"{min(map(str, lacks))}: they are of other data, and not compared with"
        )
        before = None
    before = {image_id: before[image_id] for image_id in captions} if before else None
    former = quiet(references, before) if before else None
    differences = compare(scores, former) if former else None
    rows = score_rows(scores, permuted_scores(references, captions, quiet), former, differences)
    rank_by = rows[0].name
    groups = parameter_groups(outcome.state)
    trained = sum(each.parameters for each in groups if each.trainable)
    seconds = sum(record.get("seconds", 0.0) for record in outcome.history)
    workdir = prepared.workdir
    return Report(
        f"Fine-tuning on {_images(prepared.config.data)}",
        subtitle=f"{len(captions):,} held-out test images{first_of(prepared)}",
        summary=[
            sentence(rows[0], differences[rank_by] if differences else None),
            *tell_truth(scores, prepared.config),
            f"{outcome.steps:,} steps trained {trained:,} parameters in {seconds:,.0f} "
            f"seconds; {int(outcome.state.skipped)} steps were skipped, as their gradients were "
            "not finite.",
            *([precision_told(references, captions)] if prepared.config.task == "detect" else []),
            *_earlier_told(outcome),
            *_damage_told(damage),
            *counted,
        ],
        warnings=warnings,
        scores=rows,
        examples=[
            Example(
                str(each.image_id),
                image_of(prepared.data["test"], each.number),
                each.caption.text,
                before=before[each.image_id] if before else None,
                references=each.references,
                remark=(
                    remark_on(each.image_id, each.caption.text, prepared.config.seed)
                    if TRUE in scores.per_image
                    else ""
                ),
                scores={rank_by: SCALE * float(scores.per_image[rank_by][number])},
            )
            for number, each in enumerate(found)
        ],
        rank_by=rank_by,
        codec=mask_codec(prepared.config.masks),
        charts=_charts(outcome.history),
        parameters=groups,
        config=prepared.config.to_dict(),
        environment=environment(),
        files={
            "Model": workdir / (prepared.config.export_name or IN_WORKDIR),
            "Predictions": workdir / AFTER,
            "Workdir": workdir,
        },
    )


def tell(report: Report) -> None:
    """Prints the summary, the scores, the first few captions and the warnings of a report."""
    print("\n".join(map(visible, report.summary)))
    width = max(len(row.name) for row in report.scores)
    for row in report.scores:
        before = "" if row.before is None else f"{row.before:.1f} -> "
        print(f"{row.name:<{width}} {before}{row.value:.1f} ({row.low:.1f} to {row.high:.1f})")
    for each in report.examples[:_SHOWN]:
        print(f"\n{visible(each.image_id)}")
        if each.before is not None:
            print(f"  before: {visible(each.before)}")
        print(f"  after:  {visible(each.caption)}")
        if each.remark:
            print(f"          {visible(each.remark)}")
        print(f"  people: {visible(each.references[0])}")
    for warning in report.warnings:
        print(f"\nwarning: {visible(warning)}", file=sys.stderr)


def _earlier_told(outcome: Outcome) -> list[str]:
    """Returns a sentence if the model is not that of the last step; else none."""
    step = int(outcome.state.step)
    if step == outcome.steps:
        return []
    return [f"The model is that after {step:,} steps, which has the lowest validation loss."]


def _damage_told(damage: Damage) -> list[str]:
    """Returns a sentence for damaged records that were replaced; none if there are none."""
    counts = {split: len(found) for split, found in damage.items() if found}
    if not counts:
        return []
    each = ", ".join(f"{count:,} in {split}" for split, count in counts.items())
    total = sum(counts.values())
    return [f"{total:,} damaged records were replaced by others: {each}; see {DAMAGED}."]


def _images(data: DataConfig) -> str:
    if data.drawn:
        return f"{data.drawn} drawn images"
    return data.name if data.form == "tfds" else data.train


def _charts(history: Sequence[Mapping[str, float]]) -> list[Chart]:
    def line(title: str, name: str) -> Line:
        records = [record for record in history if name in record]
        return Line(title, [r["step"] for r in records], [r[name] for r in records])

    losses = [line("training", "loss")]
    if any("validation_loss" in record for record in history):
        losses.append(line("validation", "validation_loss"))
    return [
        Chart("Loss", losses, "nats per token"),
        Chart("Learning rate", [line("rate", "learning_rate")]),
        Chart("Speed", [line("speed", "captions_per_second")], "captions/s", from_zero=True),
        Chart("Waiting for data", [line("share", "waiting")], "of the time", from_zero=True),
    ]
