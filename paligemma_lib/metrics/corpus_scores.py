"""Scores of captions with their intervals, and comparisons of two captioners on the same images.

    scores = score(references, captions)                # or another scorer of `tasks`
    scores.intervals(confidence=0.95)["CIDEr"]
    compare(scores, score(references, captions_of_another_model))["CIDEr"].p_value

A score of a corpus is a function of statistics that add up over its images, such as counts of
n-grams. So resampling images needs no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from paligemma_lib.metrics.caption_checks import ImageId, check_same_images
from paligemma_lib.metrics.resampling import Value, bootstrap, randomized
from paligemma_lib.runtime.bounds import real

SCALE = 100  # reports show scores times 100, as papers do; here they are unscaled

References = Mapping[ImageId, Sequence[str]]  # texts by people, for each image
Captions = Mapping[ImageId, str]  # one text of the model, for each image


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
    """Scores of the corpus and of each image.

    Attributes:
      image_ids: the images, in the order of the rows below.
      corpus: name -> score of all images.
      per_image: name -> float64[N], the score of each image alone.
      warnings: what speaks against believing the scores.
      statistics: float64[N, S]; their sum over some of the images determines the scores of those.
      value: computes float64[..., M], the scores in the order of `corpus`, from float64[..., S].
    """

    image_ids: tuple[ImageId, ...]
    corpus: Mapping[str, float]
    per_image: Mapping[str, np.ndarray]
    warnings: tuple[str, ...]
    statistics: np.ndarray
    value: Value

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        image_ids: Sequence[ImageId],
        statistics: np.ndarray,
        value: Value,
        warnings: Sequence[str] = (),
    ) -> Scores:
        """Returns the scores of these names, computed from statistics of each image."""
        total, each = value(statistics.sum(axis=0)), value(statistics)
        return cls(
            tuple(image_ids),
            corpus={name: float(found) for name, found in zip(names, total, strict=True)},
            per_image=dict(zip(names, each.T, strict=True)),
            warnings=tuple(warnings),
            statistics=statistics,
            value=value,
        )

    def beside(self, other: Scores) -> Scores:
        """Returns these scores and others of the same images as one.

        Raises:
          ValueError: the images differ, or their order.
        """
        if self.image_ids != other.image_ids:
            raise ValueError("scores of different images, or in another order, stay apart")
        own = self.statistics.shape[1]

        def value(sums: np.ndarray) -> np.ndarray:
            parts = self.value(sums[..., :own]), other.value(sums[..., own:])
            return np.concatenate(parts, axis=-1)

        return Scores(
            self.image_ids,
            {**self.corpus, **other.corpus},
            {**self.per_image, **other.per_image},
            self.warnings + other.warnings,
            np.concatenate([self.statistics, other.statistics], axis=1),
            value,
        )

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
        values = bootstrap(self.statistics, self.value, resamples=resamples, seed=seed)
        low, high = np.quantile(values, _tails(confidence), axis=0)
        return {
            name: Interval(float(a), float(b))
            for name, a, b in zip(self.corpus, low, high, strict=True)
        }


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
      ValueError: the image ids or the names of the scores differ, or an argument is out of range.
    """
    if [*first.corpus] != [*second.corpus]:
        names = " and ".join(", ".join(scores.corpus) for scores in (first, second))
        raise ValueError(f"the scores are {names}: score both by the same task")
    check_same_images(first.image_ids, second.image_ids, "the first scores", "the second")
    place = {image_id: number for number, image_id in enumerate(second.image_ids)}
    other = second.statistics[[place[image_id] for image_id in first.image_ids]]
    statistics = np.stack([first.statistics, other], axis=1)
    one, two = first.value(statistics.sum(axis=0))
    drawn = bootstrap(statistics, first.value, resamples=resamples, seed=seed)
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], _tails(confidence), axis=0)
    chance = randomized(statistics, first.value, resamples=resamples, seed=seed)
    # Rounding may make a chance difference that equals the observed one a little smaller; the
    # tolerance counts it all the same. Adding 1 counts the observed assignment, which is one of the
    # equally likely ones, so that a p-value is never 0.
    reached = np.sum(np.abs(chance) >= np.abs(one - two) - 1e-12, axis=0)
    p_values = (1 + reached) / (1 + resamples)
    columns = np.stack([one - two, low, high, p_values], axis=1)
    return {
        name: Difference(*map(float, row)) for name, row in zip(first.corpus, columns, strict=True)
    }


def _tails(confidence: float) -> tuple[float, float]:
    confidence = real("confidence", confidence, above=0, below=1)
    return (1 - confidence) / 2, (1 + confidence) / 2
