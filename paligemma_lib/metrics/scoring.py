"""Scores of captions against references, and of two captioners against each other.

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
    """Where the middle `confidence` of the resampled scores lie."""

    low: float
    high: float


class Difference(NamedTuple):
    """The first captioner's score less the second's."""

    value: float
    low: float
    high: float
    p_value: float  # how often as large a difference comes of chance alone, either way


@dataclass(frozen=True, eq=False)
class Scores:
    """What `score` returns: BLEU and ROUGE-L in [0, 1], CIDEr in [0, 10]."""

    image_ids: tuple[ImageId, ...]
    corpus: Mapping[str, float]
    per_image: Mapping[str, np.ndarray]  # float64[N] each, in the order of `image_ids`
    warnings: tuple[str, ...]
    statistics: np.ndarray  # float64[N, 13]: BLEU's ten, ROUGE-L, CIDEr, 1

    def intervals(
        self, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> dict[str, Interval]:
        """Percentile bootstrap intervals of the corpus scores, over images.

        BLEU is computed anew from each resample's counts. CIDEr's word rarities stay those of all
        references: they belong to the measure, and in a resample that holds images twice they
        would be others. So the intervals say how the score varies with the images, the references
        that define it being given.

        Args:
          confidence: in (0, 1).
          resamples: corpora drawn.
          seed: the same seed gives the same intervals.

        Raises:
          ValueError: an argument is out of range.
        """
        values = bootstrap(self.statistics, _values, resamples=resamples, seed=seed)
        low, high = np.quantile(values, _tails(confidence), axis=0)
        return {
            name: Interval(float(a), float(b)) for name, a, b in zip(NAMES, low, high, strict=True)
        }


def score(references: Mapping[ImageId, Sequence[str]], captions: Mapping[ImageId, str]) -> Scores:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr as the COCO caption evaluation gives them.

    BLEU of the corpus comes from the counts of all images together, with the closest reference
    length; ROUGE-L and CIDEr-D are means over images. BLEU of a short caption is near 0 where it
    has no run of four words, even if it equals a reference.

    Args:
      references: for each image, the captions that people gave it.
      captions: for the same images, one caption each.

    Raises:
      ValueError: there are no images, the images differ, or a caption is no text.
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
    """The scores when every image gets the caption of another one, drawn by `seed`.

    A model that looks at its images loses most of its CIDEr by this.

    Raises:
      ValueError: as `score`, or there is one image only.
    """
    check_captions(references, captions)
    image_ids = list(references)
    if len(image_ids) == 1:
        raise ValueError("one image only: its caption cannot be given to another; score more")
    order = np.random.default_rng(seed).permutation(len(image_ids))
    # Along one cycle through all images, so none keeps its own.
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
    """By how much the first captioner is better than the second on the same images.

    The interval is that of the paired bootstrap, both scored on the same resample of the images;
    the p-value is that of approximate randomization, two-sided, at least 1 / (resamples + 1).

    Args:
      first, second: scores of the same images against the same references.
      confidence, resamples, seed: as in `Scores.intervals`.

    Raises:
      ValueError: the images differ, or an argument is out of range.
    """
    check_same_images(first.image_ids, second.image_ids, "the first scores", "the second")
    place = {image_id: number for number, image_id in enumerate(second.image_ids)}
    other = second.statistics[[place[image_id] for image_id in first.image_ids]]
    statistics = np.stack([first.statistics, other], axis=1)
    one, two = _values(statistics.sum(axis=0))
    drawn = bootstrap(statistics, _values, resamples=resamples, seed=seed)
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], _tails(confidence), axis=0)
    chance = randomized(statistics, _values, resamples=resamples, seed=seed)
    # A difference of nothing must count as reached in spite of rounding.
    reached = np.sum(np.abs(chance) >= np.abs(one - two) - 1e-12, axis=0)
    p_values = (1 + reached) / (1 + resamples)
    columns = np.stack([one - two, low, high, p_values], axis=1)
    return {name: Difference(*map(float, row)) for name, row in zip(NAMES, columns, strict=True)}


def _values(sums: np.ndarray) -> np.ndarray:
    """float64[..., 13] of summed statistics -> float64[..., 6], scores in the order of `NAMES`."""
    means = sums[..., 10:12] / sums[..., 12:]
    return np.concatenate([bleu(sums[..., :10]), means], axis=-1)


def _tails(confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: expected more than 0 and less than 1, as 0.95")
    return (1 - confidence) / 2, (1 + confidence) / 2
