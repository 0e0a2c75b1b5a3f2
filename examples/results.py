"""What a run leaves: captions before and after, scores, the exported model, the report."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ingredients import Ingredients
from ml_collections import ConfigDict

import paligemma_lib as pg
from paligemma_lib.captioner import Captioned, Captioner
from paligemma_lib.checkpoint.gathering import whole
from paligemma_lib.data.replacing import Replacing
from paligemma_lib.doctor import plain
from paligemma_lib.evaluation import (
    RANK_BY,
    environment,
    permuted_scores,
    picture_of,
    score_rows,
    sentence,
    write_outcome,
)
from paligemma_lib.metrics import (
    ImageId,
    compare,
    read_predictions,
    score,
    write_predictions,
)
from paligemma_lib.report import Chart, Example, Line, ParameterGroup, Report
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.atomic import whole_file
from paligemma_lib.train import TrainState
from paligemma_lib.trainable import pieces_shape

BEFORE, AFTER = "predictions_before.json", "predictions.json"


def caption_test_pictures(
    config: ConfigDict, run: Ingredients, params: dict[str, Any], count: int = 0
) -> list[Captioned]:
    """Captions of the first test pictures, greedily; 0: as many as the config says.

    Raises ValueError for one that is damaged, unless the config says to do without.
    """
    captioner = Captioner(run.model, pg.sharding.relaid(params, "tensor"), run.tokenizer)
    results = captioner.caption(
        run.data.test,
        prompt=config.prompt,
        batch_size=config.decode_batch_size,
        max_new_tokens=config.max_new_tokens,
        count=count or config.test_pictures or None,
    )
    captioned: list[Captioned] = []
    for result in results:
        if isinstance(result, Captioned):
            captioned.append(result)
        elif config.data.damaged == "raise":
            raise ValueError(f"{result.where}: {result.problem}")
        elif jax.process_index() == 0:
            logging.warning("left out: %s: %s", result.where, result.problem)
    return captioned


def pixels_of(run: Ingredients, number: int) -> np.ndarray:
    """uint8[S, S, 3]: a test picture as the model sees it."""
    (record,) = run.data.test.read([number])
    pixels = pg.data.decode_image(record.image, run.model.vision.image_size)
    return np.round((pixels + 1) * 127.5).astype(np.uint8)


def predictions_before(
    config: ConfigDict, workdir: Path, run: Ingredients
) -> Mapping[ImageId, str]:
    """Captions of the test pictures before training, made once and kept."""
    path = workdir / BEFORE
    if processes.gather(b"known" if path.is_file() else b"")[0]:  # what the first sees counts
        return read_predictions(path)
    results = caption_test_pictures(config, run, run.params)
    captions: dict[ImageId, str] = {each.image_id: each.caption.text for each in results}
    if jax.process_index() == 0:
        write_predictions(path, captions)
    return captions


def finish(
    config: ConfigDict,
    workdir: Path,
    run: Ingredients,
    state: TrainState,
    history: Sequence[Mapping[str, float]],
    before: Mapping[ImageId, str] | None,
) -> None:
    """Exports the model, captions and scores the test pictures, writes the report."""
    found = caption_test_pictures(config, run, state.all_params())
    damaged = damaged_records(run)
    results: dict[ImageId, Captioned] = {result.image_id: result for result in found}
    params = whole(state.all_params())
    if jax.process_index() > 0:
        return
    export = workdir / config.export
    pg.checkpoint.save_params(export, params, dtype=config.export_dtype)
    with whole_file(workdir / "tokenizer.model") as file:  # so that the folder is a checkpoint
        file.write(run.tokenizer.serialized())
    captions = {image_id: result.caption.text for image_id, result in results.items()}
    references = {image_id: result.references for image_id, result in results.items()}
    write_predictions(workdir / AFTER, captions)
    scores = score(references, captions)
    former = score(references, before) if before else None
    differences = compare(scores, former) if former else None
    rows = score_rows(scores, permuted_scores(references, captions), former, differences)
    seconds = sum(record.get("seconds", 0.0) for record in history)
    trained = sum(math.prod(pieces_shape(pieces)) for pieces in state.trained.values())
    summary = [
        sentence(rows[0], differences[RANK_BY] if differences else None),
        f"{int(state.step):,} steps trained {trained:,} parameters in {seconds:,.0f} seconds; "
        f"{int(state.skipped)} steps were skipped, as their gradients were not finite.",
        *([f"{damaged} damaged records were replaced by others."] if damaged else []),
    ]
    report = Report(
        f"Fine-tuning on {_pictures(config)}",
        subtitle=f"{len(captions):,} test pictures that training has not seen",
        summary=summary,
        warnings=scores.warnings,
        scores=rows,
        examples=[
            Example(
                str(image_id),
                picture_of(run.data.test, result.number),
                result.caption.text,
                before=before[image_id] if before else None,
                references=result.references,
                scores={RANK_BY: float(scores.per_image[RANK_BY][number])},
            )
            for number, (image_id, result) in enumerate(results.items())
        ],
        rank_by=RANK_BY,
        charts=_charts(history),
        parameters=_groups(state),
        config=plain(config),
        environment=environment(),
        files={"Model": export, "Predictions": workdir / AFTER, "Workdir": workdir},
    )
    path = write_outcome(workdir, report)
    print("\n".join(summary))
    for row in rows:
        former_value = "" if row.before is None else f"{row.before:.3f} -> "
        print(f"{row.name:<8} {former_value}{row.value:.3f} ({row.low:.3f} to {row.high:.3f})")
    for image_id in list(captions)[:3]:
        print(f"\n{image_id}")
        if before:
            print(f"  before: {before[image_id]}")
        print(f"  after:  {captions[image_id]}\n  people: {references[image_id][0]}")
    print(f"\nThe report: {path}\nThe model:  {export}")


def damaged_records(run: Ingredients) -> int:
    """How many records for training and validation were found damaged since this start."""
    mine = "".join(
        f"{split} {number}\n"
        for split, source in (("train", run.data.train), ("validation", run.data.validation))
        if isinstance(source, Replacing)
        for number in source.damaged
    )
    return len({line for part in processes.gather(mine.encode()) for line in part.splitlines()})


def _pictures(config: ConfigDict) -> str:
    data = config.data
    if data.kind == "sample":
        return f"{data.name} drawn pictures"
    return data.name if data.kind == "tfds" else data.train


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


def _groups(state: TrainState) -> list[ParameterGroup]:
    """Parameters by the first parts of their names."""
    groups = []
    for pieces_by_name, trainable in ((state.trained, True), (state.frozen, False)):
        shapes: dict[str, list[int]] = {}
        for name, pieces in pieces_by_name.items():
            group = "/".join(name.split("/")[: 3 if name.startswith("llm/layers") else 2])
            shapes.setdefault(group, []).append(math.prod(pieces_shape(pieces)))
        groups += [
            ParameterGroup(group, len(counts), sum(counts), trainable)
            for group, counts in shapes.items()
        ]
    return groups
