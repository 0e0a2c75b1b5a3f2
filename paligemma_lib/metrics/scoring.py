"""Scores captions against references, and compares two captioners on the same images.

scores = score({"a.jpg": ["A dog runs.", "A dog is running."]}, {"a.jpg": "a dog runs"})
scores.corpus["BLEU-4"], scores.per_image["ROUGE-L"][0], scores.warnings
scores.intervals(confidence=0.95)["CIDEr"]
compare(scores, score(references, captions_of_another_model))["CIDEr"].p_value
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from paligemma_lib.metrics.caption_checks import ImageId, check_captions, check_same_images
from paligemma_lib.metrics.ngrams import bleu, bleu_statistics, cider, count
from paligemma_lib.metrics.resampling import bootstrap, randomized
from paligemma_lib.metrics.rouge import rouge_l
from paligemma_lib.metrics.sanity_warnings import sanity_warnings
from paligemma_lib.metrics.tokens import tokenize

NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")


class Interval(NamedTuple):
    """Bounds of the middle `confidence` of the resampled scores."""

    low: float
    high: float


class Difference(NamedTuple):
    """The first captioner's score minus the second's, with its interval and p-value."""

    value: float
    low: float
    high: float
    p_value: float  # two-sided: share of chance differences that are at least as large


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of the corpus and of each image: BLEU and ROUGE-L in [0, 1], CIDEr in [0, 10].

    The sum of `statistics` over some of the images determines the scores of those images.
    """

    image_ids: tuple[ImageId, ...]
    corpus: Mapping[str, float]
    per_image: Mapping[str, np.ndarray]  # float64[N] each, in the order of `image_ids`
    warnings: tuple[str, ...]
    statistics: np.ndarray  # float64[N, 13]: BLEU's 10, ROUGE-L, CIDEr, and 1 to count

    def intervals(
        self, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> dict[str, Interval]:
        """Returns percentile bootstrap intervals of the corpus scores, resampled over images.

        BLEU is recomputed from the counts of each resample. CIDEr keeps the document frequencies
        of all references: they define the metric, and a resample that contains images twice would
        change them. The intervals thus show how a score varies with the images while the
        references that define it are fixed.

        Args:
          confidence: level of the intervals, in (0, 1).
          resamples: number of corpora drawn.
          seed: seed of the draws; the same seed gives the same intervals.

        Raises:
          ValueError: an argument is out of range.
        """
        values = bootstrap(self.statistics, _values, resamples=resamples, seed=seed)
        low, high = np.quantile(values, _tails(confidence), axis=0)
        return {
            name: Interval(float(a), float(b)) for name, a, b in zip(NAMES, low, high, strict=True)
        }


def score(references: Mapping[ImageId, Sequence[str]], captions: Mapping[ImageId, str]) -> Scores:
    """Returns BLEU-1 to BLEU-4, ROUGE-L and CIDEr as the COCO caption evaluation computes them.

    BLEU of the corpus uses the summed counts of all images, with the closest reference length.
    ROUGE-L and CIDEr-D are means over images. BLEU-n of a single caption is near 0 if none of its
    n-grams matches, and so for every caption of fewer than n words, even one that equals a
    reference.

    Args:
      references: for each image, its human-written captions.
      captions: for each of the same images, one caption.

    Raises:
      ValueError: there are no images, the image ids differ, or a caption is not text.
    """
    check_captions(references, captions)
    image_ids = tuple(references)
    said = [tokenize(captions[image_id]) for image_id in image_ids]
    told = [[tokenize(reference) for reference in references[i]] for i in image_ids]
    said_counts = [count(tokens) for tokens in said]
    told_counts = [[count(tokens) for tokens in group] for group in told]
    statistics = np.column_stack(
        [
            np.stack(
                [bleu_statistics(c, r) for c, r in zip(said_counts, told_counts, strict=True)]
            ),
            [rouge_l(c, r) for c, r in zip(said, told, strict=True)],
            cider(said_counts, told_counts),
            np.ones(len(image_ids)),
        ]
    )
    corpus = _values(statistics.sum(axis=0))
    return Scores(
        image_ids,
        corpus={name: float(value) for name, value in zip(NAMES, corpus, strict=True)},
        per_image=dict(zip(NAMES, _values(statistics).T, strict=True)),
        warnings=sanity_warnings(image_ids, [captions[i] for i in image_ids], said, told),
        statistics=statistics,
    )


def permuted(
    references: Mapping[ImageId, Sequence[str]], captions: Mapping[ImageId, str], seed: int
) -> Scores:
    """Returns the scores after every image gets the caption of another image, drawn by `seed`.

    A model that looks at its images loses most of its CIDEr.

    Raises:
      ValueError: in the same cases as `score`, or there is only one image.
    """
    check_captions(references, captions)
    image_ids = list(references)
    if len(image_ids) == 1:
        raise ValueError("permuting captions needs at least 2 images, got 1: score more")
    order = np.random.default_rng(seed).permutation(len(image_ids))
    # Captions move one place along a random cycle through all images, so that no image keeps its
    # own: order = [2, 0, 1] gives image 2 the caption of 1, image 0 that of 2, image 1 that of 0.
    moved = {
        image_ids[to]: captions[image_ids[of]]
        for to, of in zip(order, np.roll(order, 1), strict=True)
    }
    return score(references, moved)


def compare(
    first: Scores,
    second: Scores,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Returns, for each score, by how much the first captioner is better than the second.

    The interval comes from the paired bootstrap: both captioners are scored on the same resample
    of the images. The two-sided p-value comes from approximate randomization and is at least
    1 / (resamples + 1).

    Args:
      first, second: scores of the same images against the same references.
      confidence, resamples, seed: as in `Scores.intervals`.

    Raises:
      ValueError: the image ids differ, or an argument is out of range.
    """
    check_same_images(first.image_ids, second.image_ids, "the first scores", "the second")
    place = {image_id: number for number, image_id in enumerate(second.image_ids)}
    other = second.statistics[[place[image_id] for image_id in first.image_ids]]
    statistics = np.stack([first.statistics, other], axis=1)
    one, two = _values(statistics.sum(axis=0))
    drawn = bootstrap(statistics, _values, resamples=resamples, seed=seed)
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], _tails(confidence), axis=0)
    chance = randomized(statistics, _values, resamples=resamples, seed=seed)
    # Rounding may make a chance difference that equals the observed one a little smaller; the
    # tolerance counts it all the same. Adding 1 counts the observed assignment, which is one of the
    # equally likely ones, so that a p-value is never 0.
    reached = np.sum(np.abs(chance) >= np.abs(one - two) - 1e-12, axis=0)
    p_values = (1 + reached) / (1 + resamples)
    columns = np.stack([one - two, low, high, p_values], axis=1)
    return {name: Difference(*map(float, row)) for name, row in zip(NAMES, columns, strict=True)}


def _values(sums: np.ndarray) -> np.ndarray:
    """Converts float64[..., 13] summed statistics to float64[..., 6] scores in `NAMES` order."""
    # Column 12 sums to the number of images, so ROUGE-L and CIDEr become means over them.
    means = sums[..., 10:12] / sums[..., 12:]
    return np.concatenate([bleu(sums[..., :10]), means], axis=-1)


def _tails(confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a value in (0, 1) such as 0.95")
    return (1 - confidence) / 2, (1 + confidence) / 2
