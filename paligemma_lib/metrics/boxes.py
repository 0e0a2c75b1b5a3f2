"""Scores boxes: mean IoU, F1, and average precision by pycocotools.

scores = score_boxes({"1.jpg": ["<loc0100>... dog"]}, {"1.jpg": "<loc0102>... dog"})
scores.corpus["Mean IoU"]
average_precision(references, captions)          # AP, or why there is none
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from paligemma_lib.metrics.caption_checks import ImageId, check_captions
from paligemma_lib.metrics.corpus_scores import Captions, References, Scores
from paligemma_lib.regions import Region, parse_regions

NAMES = ("Mean IoU", "F1")

_OVERLAP = 0.5  # IoU from which a box or a mask counts as found
_SIDE = 1000  # pixels of the square that pycocotools is told; IoU is the same in any unit


class AveragePrecision(NamedTuple):
    """COCO's AP over IoU 0.5 to 0.95 and AP at 0.5, or the reason why there are none."""

    ap: float | None
    ap50: float | None
    reason: str = ""


def score_boxes(references: References, captions: Captions) -> Scores:
    """Returns the mean IoU of all true boxes, 0 for those that are missed, and F1 at IoU 0.5.

    Boxes are matched one to one, those of the highest IoU first, and only with the same label. An
    image may have no true box: those that the model writes there lower F1.

    Args:
      references: for each image, texts with <loc> tokens; all of their boxes are true.
      captions: for each of the same images, the text of the model.

    Raises:
      ValueError: there are no images, the ids differ, a text is not str, or no reference has a box.
    """
    check_captions(references, captions)
    truth = _true_boxes(references)
    said = {image_id: parse_regions(captions[image_id]) for image_id in truth}
    rows = match_rows(said, truth, matched)
    without = [image_id for image_id, true in truth.items() if true and not said[image_id]]
    warnings = []
    if without:
        warnings = [
            f"{len(without):,} of {sum(map(bool, truth.values())):,} texts have no box: does the "
            "prompt ask for boxes, and are max_new_tokens enough for them? First: "
            f"{without[0]!r}"
        ]
    return Scores.of(NAMES, [*references], rows, iou_and_f1, warnings)


def match_rows(
    said: Mapping[ImageId, list[Region]],
    truth: Mapping[ImageId, list[Region]],
    match: Callable[[list[Region], list[Region]], list[float]],
) -> np.ndarray:
    """Returns float64[images, 4] for `iou_and_f1`: sum of IoU, true regions, hits, all regions."""
    rows = []
    for image_id, true in truth.items():
        overlaps = match(said[image_id], true)
        hits = sum(overlap >= _OVERLAP for overlap in overlaps)
        rows.append([sum(overlaps), len(true), hits, len(said[image_id]) + len(true)])
    return np.array(rows, np.float64)


def matched(said: Sequence[Region], true: Sequence[Region]) -> list[float]:
    """Returns the IoU of each match of a box with a true one of the same label."""
    return best_matches(said, true, lambda i, j: said[i].box.iou(true[j].box))


def best_matches(
    said: Sequence[Region], true: Sequence[Region], overlap: Callable[[int, int], float]
) -> list[float]:
    """Returns the IoU of each match of a region with a true one of the same label.

    Args:
      said: regions by the model.
      true: regions by people.
      overlap: gives the IoU of said[i] with true[j].
    """
    pairs = sorted(
        (
            (-overlap(i, j), i, j)
            for i, one in enumerate(said)
            for j, other in enumerate(true)
            if one.label.casefold() == other.label.casefold()
        ),
    )
    found, taken, given = [], set(), set()
    for negative, i, j in pairs:
        if negative < 0 and i not in taken and j not in given:
            taken.add(i)
            given.add(j)
            found.append(-negative)
    return found


def average_precision(references: References, captions: Captions) -> AveragePrecision:
    """Returns COCO's average precision, 0 to 1, by pycocotools.

    Text has no confidence, so all boxes have the same: what is measured is which boxes are written,
    and not how they are ranked. So it is below that of detectors with the same boxes.

    Raises:
      ValueError: in the same cases as `score_boxes`.
    """
    check_captions(references, captions)
    _true_boxes(references)
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        reason = "AP needs pycocotools: pip install 'paligemma_lib[detect]'"
        return AveragePrecision(None, None, reason)
    categories: dict[str, int] = {}
    true: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for number, (image_id, told) in enumerate(references.items(), start=1):
        for texts, rows in ((told, true), ([captions[image_id]], said)):
            for region in (region for text in texts for region in parse_regions(text)):
                label = region.label.casefold()
                category = categories.setdefault(label, len(categories) + 1)
                top, left, bottom, right = (side * _SIDE for side in region.box)
                size = right - left, bottom - top
                rows.append(
                    {
                        "id": len(rows) + 1,
                        "image_id": number,
                        "category_id": category,
                        "bbox": [left, top, *size],
                        "area": size[0] * size[1],
                        "iscrowd": 0,
                        "score": 1.0,
                    }
                )
    if not said:
        return AveragePrecision(0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints each step
        truth = COCO()
        truth.dataset = {
            "images": [{"id": n} for n in range(1, len(references) + 1)],
            "categories": [{"id": n, "name": name} for name, n in categories.items()],
            "annotations": true,
        }
        truth.createIndex()
        found = COCO()
        found.dataset = {**truth.dataset, "annotations": said}
        found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return AveragePrecision(float(evaluation.stats[0]), float(evaluation.stats[1]))


def _true_boxes(references: References) -> dict[ImageId, list[Region]]:
    """Returns the boxes of each image. Raises ValueError if there are none at all."""
    found = {
        image_id: [region for text in told for region in parse_regions(text)]
        for image_id, told in references.items()
    }
    if not any(found.values()):
        first, told = next(iter(references.items()))
        raise ValueError(
            f"none of {len(found):,} references has a box, the first is {told[0]!r:.80} of "
            f"{first!r}: expected texts with <loc> tokens"
        )
    return found


def iou_and_f1(sums: np.ndarray) -> np.ndarray:
    """Converts float64[..., 4] sums of IoU, true boxes, hits and all boxes to float64[..., 2]."""
    overlap, true, hits, boxes = np.moveaxis(sums, -1, 0)
    # Where nothing is true, an image is right if nothing is said. Its sums are 0, so it changes no
    # mean over boxes; these values are those of the image alone, or of a resample of such images.
    iou = np.where(true > 0, overlap / np.maximum(true, 1), boxes == 0)
    return np.stack([iou, np.where(boxes > 0, 2 * hits / np.maximum(boxes, 1), 1)], axis=-1)
