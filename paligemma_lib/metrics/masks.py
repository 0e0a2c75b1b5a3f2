"""Scores masks: their mean IoU with the true ones, and F1.

scores = score_masks({"1.jpg": ["<loc...><seg...> dog"]}, {"1.jpg": "<loc...><seg...> dog"}, codec)
scores.corpus["Mean mask IoU"]
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np

from paligemma_lib.metrics.boxes import best_matches, iou_and_f1, match_rows
from paligemma_lib.metrics.caption_checks import check_captions
from paligemma_lib.metrics.corpus_scores import Captions, References, Scores
from paligemma_lib.regions import MaskCodec, Region, parse_regions, region_masks

NAMES = ("Mean mask IoU", "Mask F1")

_SIDE = 256  # pixels of the square that masks are compared in, whatever the size of the image


def score_masks(references: References, captions: Captions, codec: MaskCodec) -> Scores:
    """Returns the mean IoU of all true masks, 0 for those that are missed, and F1 at IoU 0.5.

    Masks are matched one to one, those of the highest IoU first, and only with the same label. A
    region that the model writes without a mask covers nothing.

    Args:
      references: for each image, texts with <loc> and <seg> tokens; all of their masks are true.
      captions: for each of the same images, the text of the model.
      codec: turns codes into pixels.

    Raises:
      ValueError: there are no images, the ids differ, a text is not str, or no reference has a
        mask.
    """
    check_captions(references, captions)
    truth = {image_id: _with_masks(told) for image_id, told in references.items()}
    if not any(truth.values()):
        first, told = next(iter(references.items()))
        raise ValueError(
            f"none of {len(truth):,} references has a mask, the first is {told[0]!r:.80} of "
            f"{first!r}: expected texts with 4 <loc> and 16 <seg> tokens"
        )
    said = {image_id: parse_regions(captions[image_id]) for image_id in truth}
    rows = match_rows(said, truth, functools.partial(_matched, codec))
    without = [
        image_id
        for image_id, true in truth.items()
        if true and not any(region.mask for region in said[image_id])
    ]
    warnings = []
    if without:
        warnings = [
            f"{len(without):,} of {sum(map(bool, truth.values())):,} texts have no mask: does the "
            "prompt ask for masks, and are max_new_tokens enough for them, 20 each? First: "
            f"{without[0]!r}"
        ]
    return Scores.of(NAMES, [*references], rows, iou_and_f1, warnings)


def _with_masks(texts: Iterable[str]) -> list[Region]:
    return [region for text in texts for region in parse_regions(text) if region.mask]


def _matched(codec: MaskCodec, said: list[Region], true: list[Region]) -> list[float]:
    """Returns the IoU of each match of a mask with a true one of the same label."""
    masks = region_masks([*said, *true], codec, height=_SIDE, width=_SIDE)
    overlap = functools.partial(_iou, masks[: len(said)], masks[len(said) :])
    return best_matches(said, true, overlap)


def _iou(
    said: Sequence[np.ndarray | None], true: Sequence[np.ndarray | None], i: int, j: int
) -> float:
    """Returns the IoU of said[i] with true[j], bool[H, W] each."""
    one, other = said[i], true[j]
    if one is None or other is None:
        return 0.0
    shared, union = int((one & other).sum()), int((one | other).sum())
    return shared / union if union else 0.0
