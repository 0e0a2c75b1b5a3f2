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
    SCALE,
    cut_off_told,
    environment,
    examples_of,
    image_of,
    permuted_scores,
    precision_told,
    score_rows,
    sentence,
    skipped_told,
)
from paligemma_lib.metrics import (
    ImageId,
    compare,
    meteor,
    read_predictions,
    renamed,
    spice,
    write_predictions,
)
from paligemma_lib.metrics.tasks import scorer_of
from paligemma_lib.regions import MaskCodec
from paligemma_lib.report import Example, Report

CHUNK = 64  # records read at a time to collect their captions

References = Mapping[ImageId, Sequence[str]]


def evaluation(
    source: Source,
    done: Mapping[ImageId, Captioned],
    skipped: Sequence[Skipped],
    asked: Mapping[str, Any],
    codec: MaskCodec | None = None,
) -> Report:
    """Scores captions, and writes them to predictions.json in the output folder.

    Args:
      source: the images.
      done: captions by image.
      skipped: images that could not be captioned.
      asked: options of the command.
      codec: turns the codes of masks into pixels, for task segment.
    """
    captions = {image_id: result.caption.text for image_id, result in done.items()}
    references = {image_id: result.references for image_id, result in done.items()}
    predictions = asked["out_dir"] / "predictions.json"
    write_predictions(predictions, captions)
    task = asked["task"]
    scores = scorer_of(task, codec)(references, captions)
    chance = permuted_scores(references, captions, scorer_of(task, codec, quiet=True))
    rows = score_rows(scores, chance)
    counted, named = skipped_told(skipped)
    return Report(
        f"Captions by {Path(asked.get('checkpoint', 'nano')).name}",
        subtitle=f"{len(done):,} {_images_of(asked)}",
        summary=[sentence(rows[0]), *counted, *_other_scores(asked, references, captions)],
        warnings=[*scores.warnings, *cut_off_told(done.values()), *named],
        scores=rows,
        examples=examples_of(source, done, scores),
        rank_by=rows[0].name,
        codec=codec,
        config=_config_of(asked),
        environment=environment(),
        files={"Predictions": predictions},
    )


def comparison(
    source: Source,
    files: Sequence[Path],
    asked: Mapping[str, Any],
    codec: MaskCodec | None = None,
) -> Report:
    """Scores two files of predictions, and tests by how much the second is better.

    Args:
      source: the images and their references.
      files: two files of predictions for the same images.
      asked: options of the command.
      codec: turns the codes of masks into pixels, for task segment.
    """
    a, b = files
    numbers, references = _references_of(source)
    former, latter = (renamed(read_predictions(path), references, path) for path in (a, b))
    task = asked["task"]
    before, after = (scorer_of(task, codec)(references, each) for each in (former, latter))
    differences = compare(after, before)
    chance = permuted_scores(references, latter, scorer_of(task, codec, quiet=True))
    rows = score_rows(after, chance, before, differences)
    rank_by = rows[0].name
    examples = [
        Example(
            str(image_id),
            image_of(source, numbers[image_id]),
            latter[image_id],
            before=former[image_id],
            references=references[image_id],
            scores={rank_by: SCALE * float(after.per_image[rank_by][number])},
        )
        for number, image_id in enumerate(after.image_ids)
    ]
    return Report(
        f"{b.name} against {a.name}",
        subtitle=f"{len(latter):,} {_images_of(asked)}",
        summary=[
            sentence(rows[0], differences[rank_by]),
            *_other_scores(asked, references, latter),
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
        rank_by=rows[0].name,
        codec=codec,
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
    name = asked.get("data")
    if not name and "config" in asked:
        name = asked["config"].data.test
    return f"images of {name}" if name else "drawn images"


def _other_scores(
    asked: Mapping[str, Any], references: References, captions: Mapping[ImageId, str]
) -> list[str]:
    """Returns sentences on scores by other programs: AP of boxes; METEOR and SPICE if asked for.

    If a score is missing, its sentence says how to get it.
    """
    if asked["task"] == "detect":
        return [precision_told(references, captions)]
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
