"""Makes the reports of `paligemma evaluate`: of one set of captions, or a comparison of two.

report = evaluation(source, done, skipped, asked)
report = comparison(source, [Path("a.json"), Path("b.json")], asked)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paligemma_lib.captioner import Captioned, Skipped
from paligemma_lib.data.sources import Source
from paligemma_lib.evaluation import (
    RANK_BY,
    SCALE,
    environment,
    examples_of,
    image_of,
    permuted_scores,
    score_rows,
    sentence,
    skipped_told,
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

CHUNK = 64  # records read at a time to collect their captions

References = Mapping[ImageId, Sequence[str]]


def evaluation(
    source: Source,
    done: Mapping[ImageId, Captioned],
    skipped: Sequence[Skipped],
    asked: Mapping[str, Any],
) -> Report:
    """Scores captions, and writes them to predictions.json in the output folder.

    Args:
      source: the images.
      done: captions by image.
      skipped: images that could not be captioned.
      asked: options of the command.
    """
    captions = {image_id: result.caption.text for image_id, result in done.items()}
    references = {image_id: result.references for image_id, result in done.items()}
    predictions = asked["out_dir"] / "predictions.json"
    write_predictions(predictions, captions)
    scores = score(references, captions)
    rows = score_rows(scores, permuted_scores(references, captions))
    counted, named = skipped_told(skipped)
    return Report(
        f"Captions by {Path(asked.get('checkpoint', 'nano')).name}",
        subtitle=f"{len(done):,} {_images_of(asked)}",
        summary=[sentence(rows[0]), *counted, *_java_scores(asked, references, captions)],
        warnings=[*scores.warnings, *named],
        scores=rows,
        examples=examples_of(source, done, scores),
        rank_by=RANK_BY,
        config=_config_of(asked),
        environment=environment(),
        files={"Predictions": predictions},
    )


def comparison(source: Source, files: Sequence[Path], asked: Mapping[str, Any]) -> Report:
    """Scores two files of predictions, and tests by how much the second is better.

    Args:
      source: the images and their references.
      files: two files of predictions for the same images.
      asked: options of the command.
    """
    a, b = files
    former, latter = read_predictions(a), read_predictions(b)
    numbers, references = _references_of(source)
    before, after = score(references, former), score(references, latter)
    differences = compare(after, before)
    rows = score_rows(after, permuted_scores(references, latter), before, differences)
    examples = [
        Example(
            str(image_id),
            image_of(source, numbers[image_id]),
            latter[image_id],
            before=former[image_id],
            references=references[image_id],
            scores={RANK_BY: SCALE * float(after.per_image[RANK_BY][number])},
        )
        for number, image_id in enumerate(after.image_ids)
    ]
    return Report(
        f"{b.name} against {a.name}",
        subtitle=f"{len(latter):,} {_images_of(asked)}",
        summary=[
            sentence(rows[0], differences[RANK_BY]),
            *_java_scores(asked, references, latter),
        ],
        warnings=[
            f"{path.name}: {warning}"
            for path, scores in ((b, after), (a, before))
            for warning in scores.warnings
        ],
        scores=rows,
        score_label=b.name,
        before_label=a.name,
        examples=examples,
        rank_by=RANK_BY,
        config=_config_of(asked),
        environment=environment(),
        files={"Before": a, "After": b},
    )


def _config_of(asked: Mapping[str, Any]) -> dict[str, object]:
    """Returns the options to list in a report.

    Files to compare are left out, as the report lists them elsewhere. The config of a run is
    replaced by its fields.
    """
    told = {name: value for name, value in asked.items() if name != "compare"}
    return told | {"config": told["config"].to_dict()} if "config" in told else told


def _images_of(asked: Mapping[str, Any]) -> str:
    """Returns a phrase for the images, such as "images of flickr8k_tfds"."""
    name = asked.get("folder") or asked.get("jsonl") or asked.get("tfds")
    if not name and "config" in asked:
        name = asked["config"].data.test
    return f"images of {name}" if name else "drawn images"


def _java_scores(
    asked: Mapping[str, Any], references: References, captions: Mapping[ImageId, str]
) -> list[str]:
    """Returns a sentence for METEOR and one for SPICE; none without --java-scores.

    If a score is missing, its sentence says how to get it.
    """
    if not asked["java_scores"]:
        return []
    found = {"METEOR": meteor(references, captions), "SPICE": spice(references, captions)}
    return [
        f"{name} is {SCALE * result.value:.1f}."
        if result.value is not None
        else f"{result.reason}."
        for name, result in found.items()
    ]


def _references_of(source: Source) -> tuple[dict[ImageId, int], dict[ImageId, tuple[str, ...]]]:
    """Returns each image's index in the source, and its references."""
    numbers: dict[ImageId, int] = {}
    references: dict[ImageId, tuple[str, ...]] = {}
    for start in range(0, len(source), CHUNK):
        chunk = range(start, min(start + CHUNK, len(source)))
        for number, record in zip(chunk, source.read(chunk), strict=True):
            numbers[record.image_id], references[record.image_id] = number, record.captions
    return numbers, references
